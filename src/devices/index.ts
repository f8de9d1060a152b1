export { FORMATS as DEVICES, findFormat as findDevice } from "./registry.ts";
