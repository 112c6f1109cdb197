// CRC-64/NVME, which S3 computes of every part and, combined, of whole objects. The tables work on
// 32-bit halves and eight bytes a step, in a worker: BigInt alone would be slower than the line.
// Outside the worker a CRC is a BigInt.
function crcWorker() {
  const POLYNOMIAL = [0xac4bc9b5, 0x9a6c9329] // reflected; low half, high half
  const low = [], high = []
  for (let k = 0; k < 8; k++) { low.push(new Uint32Array(256)); high.push(new Uint32Array(256)) }
  for (let byte = 0; byte < 256; byte++) {
    let l = byte, h = 0
    for (let bit = 0; bit < 8; bit++) {
      const odd = l & 1
      l = (l >>> 1 | h << 31) >>> 0
      h >>>= 1
      if (odd) { l ^= POLYNOMIAL[0]; h ^= POLYNOMIAL[1] }
    }
    low[0][byte] = l
    high[0][byte] = h
  }
  for (let k = 1; k < 8; k++) {
    for (let byte = 0; byte < 256; byte++) {
      const l = low[k - 1][byte], h = high[k - 1][byte]
      low[k][byte] = (l >>> 8 | h << 24) ^ low[0][l & 255]
      high[k][byte] = h >>> 8 ^ high[0][l & 255]
    }
  }
  function compute(buffer) {
    const words = new Uint32Array(buffer, 0, (buffer.byteLength >>> 3) * 2)
    const [l0, l1, l2, l3, l4, l5, l6, l7] = low, [h0, h1, h2, h3, h4, h5, h6, h7] = high
    let l = ~0, h = ~0
    for (let at = 0; at < words.length;) {
      l ^= words[at++]
      h ^= words[at++]
      const a = l & 255, b = l >>> 8 & 255, c = l >>> 16 & 255, d = l >>> 24
      const e = h & 255, f = h >>> 8 & 255, g = h >>> 16 & 255, i = h >>> 24
      l = l7[a] ^ l6[b] ^ l5[c] ^ l4[d] ^ l3[e] ^ l2[f] ^ l1[g] ^ l0[i]
      h = h7[a] ^ h6[b] ^ h5[c] ^ h4[d] ^ h3[e] ^ h2[f] ^ h1[g] ^ h0[i]
    }
    for (const byte of new Uint8Array(buffer, words.byteLength)) {
      const index = (l ^ byte) & 255
      l = (l >>> 8 | h << 24) ^ l0[index]
      h = h >>> 8 ^ h0[index]
    }
    return BigInt(~h >>> 0) << 32n | BigInt(~l >>> 0)
  }
  onmessage = ({ data }) => postMessage({ id: data.id, crc: compute(data.buffer) })
}

const crcs = {
  worker: new Worker(URL.createObjectURL(new Blob([`(${crcWorker})()`], { type: 'text/javascript' }))),
  asked: new Map(),
  count: 0,

  // The CRC of a Blob. It is read here, because WebKit's workers can't read one of a file:// page.
  async of(blob) {
    const buffer = await read(blob)
    return new Promise(resolve => {
      this.worker.onmessage ??= ({ data }) => {
        this.asked.get(data.id)(data.crc)
        this.asked.delete(data.id)
      }
      this.asked.set(++this.count, resolve)
      this.worker.postMessage({ id: this.count, buffer }, [buffer])
    })
  },

  // The CRC of two texts, one after the other, from theirs; `bytes` is the length of the second.
  // Appending zeros is linear, so it is a matrix over GF(2), and its powers come by squaring.
  combine(first, second, bytes) {
    return bytes ? apply(shiftBy(bytes), first) ^ second : first
  },

  // As S3 writes it: base64, the most significant byte first.
  text(crc) {
    return btoa(String.fromCharCode(...Array.from({ length: 8 }, (_, i) => Number(crc >> BigInt(56 - 8 * i) & 255n))))
  },
}

function apply(matrix, vector) {
  let sum = 0n
  for (let at = 0; vector; vector >>= 1n, at++) if (vector & 1n) sum ^= matrix[at]
  return sum
}

const shifts = new Map()
function shiftBy(bytes) {
  if (shifts.has(bytes)) return shifts.get(bytes)
  let power = [0x9a6c9329ac4bc9b5n, ...Array.from({ length: 63 }, (_, bit) => 1n << BigInt(bit))]
  let product = null
  for (let bits = BigInt(bytes) * 8n; bits; bits >>= 1n) {
    if (bits & 1n) product = product ? product.map(column => apply(power, column)) : power
    power = power.map(column => apply(power, column))
  }
  shifts.set(bytes, product)
  return product
}
