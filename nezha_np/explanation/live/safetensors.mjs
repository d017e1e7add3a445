// Tensors by name from the bytes of a safetensors file, and back. In memory a tensor is { shape, data }, with its numbers
// in a Float32Array (whole numbers: BigInt64Array), row after row.
//
//     8 bytes      the length n of the header, little-endian
//     n bytes      the header, JSON: { "name": { "dtype": "F16", "shape": [7000, 256], "data_offsets": [0, 3584000] }, … }
//     the rest     the numbers, little-endian; offsets count from here
//
// https://huggingface.co/docs/safetensors

// The number that 16 bits stand for: a sign, 5 bits of exponent, 10 of fraction (IEEE 754 binary16).
function fromFloat16(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = (bits & 0x3ff) / 1024;
  if (exponent === 0) return sign * fraction * 2 ** -14; // zero and the smallest numbers
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction) * 2 ** (exponent - 15);
}

// There are only 65,536 numbers of 16 bits: each is computed once.
const FLOAT16 = Float32Array.from({ length: 2 ** 16 }, (_, bits) => fromFloat16(bits));

function readFloat16(bytes) {
  const numbers = new Uint16Array(bytes);
  const data = new Float32Array(numbers.length);
  for (let at = 0; at < data.length; at++) data[at] = FLOAT16[numbers[at]];
  return data;
}

const READERS = {
  F16: readFloat16,
  F32: (bytes) => new Float32Array(bytes),
  I64: (bytes) => new BigInt64Array(bytes),
};

// bytes: an ArrayBuffer, the whole file.
export function readTensors(bytes) {
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets: offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    if (!(dtype in READERS)) throw new Error(`${name}: expected F16, F32 or I64, got ${dtype}`);
    const [start, end] = offsets.map((offset) => 8 + length + offset);
    tensors[name] = { shape, data: READERS[dtype](bytes.slice(start, end)) }; // a copy, which may start anywhere
  }
  return tensors;
}

// The bytes, a Uint8Array, of a file that holds float32 tensors.
export function writeTensors(tensors) {
  const header = {};
  let end = 0;
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype: "F32", shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = Math.ceil(text.length / 8) * 8; // filled with spaces, so that the numbers start at a multiple of 8
  const bytes = new Uint8Array(8 + length + end).fill(32, 8, 8 + length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(text, 8);
  for (const [name, { data }] of Object.entries(tensors)) {
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 8 + length + header[name].data_offsets[0]);
  }
  return bytes;
}

// The bytes that a text in base64 stands for, an ArrayBuffer.
export function fromBase64(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes.buffer;
}
