// The signer of a page that needs no server: what one upload takes is signed and lies in the page.
// Its parts' URLs differ in the number and the signature only.
const offer = JSON.parse(document.getElementById('offer').textContent)
const signer = {
  renews: false,
  single: true,
  // A page that S3 serves by path shares its origin, and so what is kept there, handles of files
  // among it, with the pages in everybody's buckets of the region. S3 knows the parts anyway.
  remembers: location.protocol === 'file:',
  bucket: offer.bucket,
  link: offer.upload_id,

  async about() {
    return offer
  },

  async start(upload) {
    return { key: offer.key, upload_id: offer.upload_id, part_bytes: this.partBytes(upload.size) }
  },

  // Given, or as small as the number of parts allows: what is lost when a line breaks is a part.
  partBytes(size) {
    const mebibytes = Math.ceil(size / offer.part_signatures.length / 2 ** 20)
    return offer.part_bytes ?? Math.max(8, mebibytes) * 2 ** 20
  },

  async parts(upload, parts) {
    return new Map(parts.map(({ number }) => [number, {
      method: 'PUT',
      url: `${offer.part_url}&partNumber=${number}&X-Amz-Signature=${offer.part_signatures[number - 1]}`,
    }]))
  },

  async list(upload, after) {
    return offer.lists[Math.floor(after / 1000)]
  },

  async complete() {
    return offer.complete
  },

  // The page would be worthless after it.
  abort: null,

  async state() {
    return offer.state
  },
}
