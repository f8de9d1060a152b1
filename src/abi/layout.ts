/**
 * Struct layouts as data, declared once. Host code (typed array indices), guest programs (load and
 * store offsets) and a test of the kernel module's header read them.
 */

/** Width in bytes of a scalar field; all fields are unsigned and little endian. */
export type Width = 1 | 2 | 4 | 8;

export interface Field<W extends Width = Width> {
  /** Byte offset from the start of the struct. */
  readonly offset: number;
  readonly width: W;
}

export type Struct<F extends Record<string, Field>> = {
  readonly name: string;
  /** Size in bytes, padding included. */
  readonly size: number;
  readonly fields: F;
} & { readonly [K in keyof F]: F[K] };

export const u8 = (offset: number): Field<1> => ({ offset, width: 1 });
export const u16 = (offset: number): Field<2> => ({ offset, width: 2 });
export const u32 = (offset: number): Field<4> => ({ offset, width: 4 });
export const u64 = (offset: number): Field<8> => ({ offset, width: 8 });
/** The same in a file that also imports the guest language, which has casts of these names. */
export const field = { u8, u16, u32, u64 } as const;

/**
 * Declares a struct. Fields become properties, as in `RING.prod.offset`.
 * @throws RangeError if a field is misaligned, outside the struct, or overlaps another one
 */
export function struct<F extends Record<string, Field>>(
  name: string,
  size: number,
  fields: F,
): Struct<F> {
  const sorted = Object.entries(fields).sort(([, a], [, b]) => a.offset - b.offset);
  let end = 0;
  for (const [key, field] of sorted) {
    if (field.offset % field.width !== 0) {
      throw new RangeError(`${name}.${key}: offset ${field.offset} is not aligned to its width`);
    }
    if (field.offset < end) throw new RangeError(`${name}.${key} overlaps the field before it`);
    end = field.offset + field.width;
  }
  if (end > size) throw new RangeError(`${name}: fields end at ${end}, past its size ${size}`);
  return Object.freeze({ ...fields, name, size, fields }) as Struct<F>;
}
