// Command yardstick is an S3-shaped server in memory, for comparing the speed of clients.
//
// It has versions, conditions, ranges, multipart uploads and copies, and it gives back the checksums
// that it was sent. It verifies neither signatures nor checksums: a yardstick for speed and for the
// number of requests, never for correctness. Paths below /_admin/ control it: fill, keep, reset,
// latency, rate, zero, stats, log.
package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const instant = "2006-01-02T15:04:05.000Z"

type version struct {
	id, etag string
	size     int64
	marker   bool
	at       time.Time
	headers  map[string]string
	body     []byte
}

type bucket struct {
	mu       sync.RWMutex
	versions map[string][]*version // newest first
	sorted   []string
	stale    bool
}

type upload struct {
	bucket, key string
	at          time.Time
	headers     map[string]string
	mu          sync.Mutex
	parts       map[int]*version
}

var (
	mu       sync.RWMutex
	buckets  = map[string]*bucket{}
	uploads  = map[string]*upload{}
	counts   sync.Map
	sequence atomic.Int64
	latency  atomic.Int64
	rate     atomic.Int64
	inFlight atomic.Int64
	mostIn   atomic.Int64
	sent     atomic.Int64
	keep     atomic.Int64 // bodies up to so many bytes are kept
	journal  operations
	block    = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}
)

// operations are the last requests that were answered, while somebody wants to know them.
type operations struct {
	mu    sync.Mutex
	wants bool
	lines []string
}

func (o *operations) note(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wants {
		o.lines = append(o.lines, line)
	}
}

// take returns what was noted since it was called last; from the first time on there is something.
func (o *operations) take() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := append([]string{}, o.lines...)
	o.wants, o.lines = true, nil
	return lines
}

func count(kind string) {
	if kind != "connections" {
		journal.note(kind)
	}
	n, ok := counts.Load(kind)
	if !ok {
		n, _ = counts.LoadOrStore(kind, new(atomic.Int64))
	}
	n.(*atomic.Int64).Add(1)
}

func find(name string, create bool) *bucket {
	mu.RLock()
	b := buckets[name]
	mu.RUnlock()
	if b == nil && create {
		mu.Lock()
		defer mu.Unlock()
		if b = buckets[name]; b == nil {
			b = &bucket{versions: map[string][]*version{}}
			buckets[name] = b
		}
	}
	return b
}

func (b *bucket) current(key string) *version {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return top(b.versions[key])
}

func top(all []*version) *version {
	if len(all) == 0 || all[0].marker {
		return nil
	}
	return all[0]
}

func (b *bucket) exact(key, id string) *version {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if id == "" {
		return top(b.versions[key])
	}
	for _, v := range b.versions[key] {
		if v.id == id {
			return v
		}
	}
	return nil
}

// holds tells whether an object, nil for none, has the ETag that a condition asks for.
func holds(condition string, v *version) bool {
	return condition == "" || v != nil && (condition == "*" || strings.Trim(condition, `"`) == v.etag)
}

// put adds a version unless a condition of the request forbids it.
func (b *bucket) put(r *http.Request, key string, v *version) bool {
	v.id = fmt.Sprintf("v%012d", sequence.Add(1))
	b.mu.Lock()
	defer b.mu.Unlock()
	now := top(b.versions[key])
	if r != nil && (r.Header.Get("If-None-Match") == "*" && now != nil || !holds(r.Header.Get("If-Match"), now)) {
		return false
	}
	if len(b.versions[key]) == 0 {
		b.stale = true
	}
	b.versions[key] = append([]*version{v}, b.versions[key]...)
	return true
}

// remove deletes one version outright, or puts a delete marker above all of them, if the current
// object is as the condition has it.
func (b *bucket) remove(key, id, condition string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.versions[key]
	if id == "" {
		if !holds(condition, top(all)) {
			return "", false
		}
		if top(all) == nil {
			return "", true
		}
		v := &version{id: fmt.Sprintf("v%012d", sequence.Add(1)), marker: true, at: time.Now().UTC()}
		b.versions[key] = append([]*version{v}, all...)
		return v.id, true
	}
	for i, v := range all {
		if v.id == id {
			b.versions[key] = append(append([]*version{}, all[:i]...), all[i+1:]...)
			break
		}
	}
	if len(b.versions[key]) == 0 {
		delete(b.versions, key)
		b.stale = true
	}
	return id, true
}

func (b *bucket) keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stale {
		b.sorted = make([]string, 0, len(b.versions))
		for key := range b.versions {
			b.sorted = append(b.sorted, key)
		}
		sort.Strings(b.sorted)
		b.stale = false
	}
	return b.sorted
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, code)
}

func say(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	io.WriteString(w, text)
}

func escape(s string) string {
	var out strings.Builder
	xml.EscapeText(&out, []byte(s))
	return out.String()
}

// receive reads a body, plain or in the chunks that AWS's SDKs send; large ones are not kept.
func receive(r *http.Request) (*version, error) {
	v := &version{at: time.Now().UTC()}
	from := io.Reader(r.Body)
	v.size = r.ContentLength
	if n := r.Header.Get("X-Amz-Decoded-Content-Length"); n != "" {
		v.size, _ = strconv.ParseInt(n, 10, 64)
		from = &dechunked{from: bufio.NewReaderSize(r.Body, 64<<10), trailer: r.Header}
	}
	if v.size <= keep.Load() {
		v.body = make([]byte, max(v.size, 0))
		if _, err := io.ReadFull(from, v.body); err != nil {
			return nil, err
		}
		sum := md5.Sum(v.body)
		v.etag = hex.EncodeToString(sum[:])
	} else {
		buffer := block.Get().(*[]byte)
		defer block.Put(buffer)
		n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{from}, *buffer)
		if err != nil || n != v.size {
			return nil, io.ErrUnexpectedEOF
		}
		v.etag = fmt.Sprintf("%032x", sequence.Add(1))
	}
	io.Copy(io.Discard, from)
	v.headers = kept(r.Header)
	return v, nil
}

type dechunked struct {
	from *bufio.Reader
	left int64
	done bool
	// Where to put what follows the last chunk, as SDKs send checksums.
	trailer http.Header
}

func (d *dechunked) Read(p []byte) (int, error) {
	if d.done {
		return 0, io.EOF
	}
	if d.left == 0 {
		line, err := d.from.ReadString('\n')
		if err != nil {
			return 0, err
		}
		size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
		if d.left, err = strconv.ParseInt(size, 16, 64); err != nil {
			return 0, err
		}
		if d.left == 0 {
			d.done = true
			lines, err := textproto.NewReader(d.from).ReadMIMEHeader()
			if err != nil {
				return 0, err
			}
			maps.Copy(d.trailer, http.Header(lines))
			return 0, io.EOF
		}
	}
	n, err := d.from.Read(p[:min(int64(len(p)), d.left)])
	if d.left -= int64(n); d.left == 0 && err == nil {
		_, err = d.from.Discard(2)
	}
	return n, err
}

func kept(all http.Header) map[string]string {
	var some map[string]string
	for name, values := range all {
		if name == "Content-Type" || strings.HasPrefix(name, "X-Amz-Meta-") || strings.HasPrefix(name, "X-Amz-Checksum-") {
			if some == nil {
				some = map[string]string{}
			}
			some[name] = values[0]
		}
	}
	return some
}

func show(w http.ResponseWriter, v *version) {
	for name, value := range v.headers {
		w.Header().Set(name, value)
	}
	w.Header().Set("ETag", `"`+v.etag+`"`)
	w.Header().Set("X-Amz-Version-Id", v.id)
	w.Header().Set("Last-Modified", v.at.Format(http.TimeFormat))
}

func encoder(q url.Values) func(string) string {
	if q.Get("encoding-type") == "url" {
		return func(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "%2F", "/") }
	}
	return escape
}

func limit(q url.Values) int {
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil && n < 1000 {
		return n
	}
	return 1000
}

// list answers ListObjects and ListObjectsV2.
func list(w http.ResponseWriter, b *bucket, q url.Values) {
	write, prefix, delimiter, most := encoder(q), q.Get("prefix"), q.Get("delimiter"), limit(q)
	after := q.Get("marker") + q.Get("start-after")
	if token, err := hex.DecodeString(q.Get("continuation-token")); err == nil && len(token) > 0 {
		after = string(token)
	}
	keys := b.keys()
	i := sort.SearchStrings(keys, max(prefix, after))
	var rows, folders strings.Builder
	n, last, more := 0, "", false
	b.mu.RLock()
	for ; i < len(keys) && strings.HasPrefix(keys[i], prefix); i++ {
		key := keys[i]
		v := top(b.versions[key])
		if key <= after || v == nil || delimiter != "" && strings.HasSuffix(after, delimiter) && strings.HasPrefix(key, after) {
			continue
		}
		if n == most {
			more = true
			break
		}
		n++
		if at := strings.Index(key[len(prefix):], delimiter); delimiter != "" && at >= 0 {
			last = key[:len(prefix)+at+len(delimiter)]
			folders.WriteString("<CommonPrefixes><Prefix>" + write(last) + "</Prefix></CommonPrefixes>")
			i += sort.Search(len(keys)-i, func(j int) bool { return !strings.HasPrefix(keys[i+j], last) && keys[i+j] > last }) - 1
			continue
		}
		last = key
		rows.WriteString("<Contents><Key>" + write(key) + "</Key><LastModified>" + v.at.Format(instant) +
			"</LastModified><ETag>&quot;" + v.etag + "&quot;</ETag><Size>" + strconv.FormatInt(v.size, 10) +
			"</Size><StorageClass>STANDARD</StorageClass></Contents>")
	}
	b.mu.RUnlock()
	head := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Prefix>%s</Prefix><KeyCount>%d</KeyCount><MaxKeys>%d</MaxKeys><IsTruncated>%v</IsTruncated>`, write(prefix), n, most, more)
	if q.Get("encoding-type") != "" {
		head += "<EncodingType>url</EncodingType>"
	}
	if more {
		head += "<NextContinuationToken>" + hex.EncodeToString([]byte(last)) + "</NextContinuationToken><NextMarker>" + write(last) + "</NextMarker>"
	}
	say(w, head+rows.String()+folders.String()+"</ListBucketResult>")
}

// listVersions answers ListObjectVersions.
func listVersions(w http.ResponseWriter, b *bucket, q url.Values) {
	write, prefix, most := encoder(q), q.Get("prefix"), limit(q)
	marker, markerID := q.Get("key-marker"), q.Get("version-id-marker")
	keys := b.keys()
	var rows strings.Builder
	n, more := 0, false
	var lastKey, lastID string
	b.mu.RLock()
	for i := sort.SearchStrings(keys, max(prefix, marker)); !more && i < len(keys) && strings.HasPrefix(keys[i], prefix); i++ {
		due := keys[i] != marker
		for j, v := range b.versions[keys[i]] {
			if !due {
				// S3 goes on after the marker's place even when that version is gone by now.
				if due = v.id <= markerID; v.id >= markerID {
					continue
				}
			}
			if more = n == most; more {
				break
			}
			n++
			lastKey, lastID = keys[i], v.id
			tag, rest := "DeleteMarker", ""
			if !v.marker {
				tag = "Version"
				rest = fmt.Sprintf("<ETag>&quot;%s&quot;</ETag><Size>%d</Size><StorageClass>STANDARD</StorageClass>", v.etag, v.size)
			}
			fmt.Fprintf(&rows, "<%s><Key>%s</Key><VersionId>%s</VersionId><IsLatest>%v</IsLatest><LastModified>%s</LastModified>%s</%s>",
				tag, write(keys[i]), v.id, j == 0, v.at.Format(instant), rest, tag)
		}
	}
	b.mu.RUnlock()
	head := fmt.Sprintf("<ListVersionsResult><IsTruncated>%v</IsTruncated>", more)
	if q.Get("encoding-type") != "" {
		head += "<EncodingType>url</EncodingType>"
	}
	if more {
		head += "<NextKeyMarker>" + write(lastKey) + "</NextKeyMarker><NextVersionIdMarker>" + lastID + "</NextVersionIdMarker>"
	}
	say(w, head+rows.String()+"</ListVersionsResult>")
}

func listUploads(w http.ResponseWriter, name string, q url.Values) {
	var rows strings.Builder
	mu.RLock()
	for id, u := range uploads {
		if u.bucket == name && strings.HasPrefix(u.key, q.Get("prefix")) {
			fmt.Fprintf(&rows, "<Upload><Key>%s</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", escape(u.key), id, u.at.Format(instant))
		}
	}
	mu.RUnlock()
	say(w, "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>"+rows.String()+"</ListMultipartUploadsResult>")
}

func deleteMany(w http.ResponseWriter, r *http.Request, b *bucket) {
	v, err := receive(r)
	var asked struct {
		Quiet  bool
		Object []struct{ Key, VersionId string }
	}
	if err != nil || xml.Unmarshal(v.body, &asked) != nil {
		refuse(w, 400, "MalformedXML")
		return
	}
	var rows strings.Builder
	for _, o := range asked.Object {
		b.remove(o.Key, o.VersionId, "")
		if !asked.Quiet {
			rows.WriteString("<Deleted><Key>" + escape(o.Key) + "</Key>")
			if o.VersionId != "" {
				rows.WriteString("<VersionId>" + o.VersionId + "</VersionId>")
			}
			rows.WriteString("</Deleted>")
		}
	}
	say(w, "<DeleteResult>"+rows.String()+"</DeleteResult>")
}

// source returns what a copy copies.
func source(r *http.Request) *version {
	place, query, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("X-Amz-Copy-Source"), "/"), "?")
	place, _ = url.PathUnescape(place)
	name, key, _ := strings.Cut(place, "/")
	b := find(name, false)
	if b == nil {
		return nil
	}
	values, _ := url.ParseQuery(query)
	return b.exact(key, values.Get("versionId"))
}

func onBucket(w http.ResponseWriter, r *http.Request, name string, q url.Values) {
	switch r.Method {
	case "PUT":
		count("CreateBucket")
		io.Copy(io.Discard, r.Body)
		find(name, true)
		return
	case "DELETE":
		count("DeleteBucket")
		w.WriteHeader(204)
		return
	}
	b := find(name, false)
	switch {
	case b == nil:
		refuse(w, 404, "NoSuchBucket")
	case r.Method == "HEAD":
		count("HeadBucket")
		w.Header().Set("X-Amz-Bucket-Region", "us-east-1")
	case q.Has("delete"):
		count("DeleteObjects")
		deleteMany(w, r, b)
	case q.Has("versions"):
		count("ListObjectVersions")
		listVersions(w, b, q)
	case q.Has("uploads"):
		count("ListMultipartUploads")
		listUploads(w, name, q)
	case q.Has("location"):
		say(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/"></LocationConstraint>`)
	case q.Has("versioning"):
		say(w, `<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>`)
	case q.Has("lifecycle"), q.Has("notification"), q.Has("policy"), q.Has("object-lock"):
		refuse(w, 404, "NoSuchConfiguration")
	default:
		count("ListObjects")
		list(w, b, q)
	}
}

func onUpload(w http.ResponseWriter, r *http.Request, b *bucket, key, id string, q url.Values) {
	mu.RLock()
	u := uploads[id]
	mu.RUnlock()
	if u == nil {
		refuse(w, 404, "NoSuchUpload")
		return
	}
	switch r.Method {
	case "PUT":
		number, _ := strconv.Atoi(q.Get("partNumber"))
		if r.Header.Get("X-Amz-Copy-Source") != "" {
			copyPart(w, r, u, number)
			return
		}
		count("UploadPart")
		part, err := receive(r)
		if err != nil {
			refuse(w, 400, "IncompleteBody")
			return
		}
		u.mu.Lock()
		u.parts[number] = part
		u.mu.Unlock()
		show(w, part)
		w.Header().Set("Content-Length", "0")
	case "POST":
		count("CompleteMultipartUpload")
		io.Copy(io.Discard, r.Body)
		v := &version{at: time.Now().UTC(), headers: u.headers, etag: fmt.Sprintf("%032x-%d", sequence.Add(1), len(u.parts))}
		for _, part := range u.parts {
			v.size += part.size
		}
		if !b.put(r, key, v) {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		mu.Lock()
		delete(uploads, id)
		mu.Unlock()
		whole := ""
		for _, name := range []string{"CRC64NVME", "CRC32", "CRC32C"} {
			if sum := r.Header.Get("X-Amz-Checksum-" + name); sum != "" {
				whole += fmt.Sprintf("<Checksum%s>%s</Checksum%s>", name, sum, name)
				v.headers = map[string]string{"X-Amz-Checksum-" + name: sum, "X-Amz-Checksum-Type": "FULL_OBJECT"}
			}
		}
		w.Header().Set("X-Amz-Version-Id", v.id)
		say(w, fmt.Sprintf("<CompleteMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><ETag>&quot;%s&quot;</ETag>%s<ChecksumType>FULL_OBJECT</ChecksumType></CompleteMultipartUploadResult>", u.bucket, escape(key), v.etag, whole))
	case "DELETE":
		count("AbortMultipartUpload")
		mu.Lock()
		delete(uploads, id)
		mu.Unlock()
		w.WriteHeader(204)
	case "GET":
		count("ListParts")
		u.mu.Lock()
		numbers := make([]int, 0, len(u.parts))
		for number := range u.parts {
			numbers = append(numbers, number)
		}
		sort.Ints(numbers)
		var rows strings.Builder
		for _, number := range numbers {
			part := u.parts[number]
			fmt.Fprintf(&rows, "<Part><PartNumber>%d</PartNumber><ETag>&quot;%s&quot;</ETag><Size>%d</Size>", number, part.etag, part.size)
			for _, name := range []string{"Crc64nvme", "Crc32", "Crc32c"} {
				if sum := part.headers["X-Amz-Checksum-"+name]; sum != "" {
					upper := strings.ToUpper(name)
					fmt.Fprintf(&rows, "<Checksum%s>%s</Checksum%s>", upper, sum, upper)
				}
			}
			rows.WriteString("</Part>")
		}
		u.mu.Unlock()
		say(w, "<ListPartsResult><IsTruncated>false</IsTruncated>"+rows.String()+"</ListPartsResult>")
	}
}

// copyPart answers UploadPartCopy.
func copyPart(w http.ResponseWriter, r *http.Request, u *upload, number int) {
	count("UploadPartCopy")
	from := source(r)
	if from == nil {
		refuse(w, 404, "NoSuchKey")
		return
	}
	if !holds(r.Header.Get("X-Amz-Copy-Source-If-Match"), from) {
		refuse(w, 412, "PreconditionFailed")
		return
	}
	first, last := int64(0), from.size-1
	fmt.Sscanf(r.Header.Get("X-Amz-Copy-Source-Range"), "bytes=%d-%d", &first, &last)
	part := &version{etag: fmt.Sprintf("%032x", sequence.Add(1)), size: last + 1 - first, at: time.Now().UTC()}
	u.mu.Lock()
	u.parts[number] = part
	u.mu.Unlock()
	say(w, fmt.Sprintf("<CopyPartResult><ETag>&quot;%s&quot;</ETag></CopyPartResult>", part.etag))
}

// send writes a body, no faster than the rate that is set for each connection.
func send(w http.ResponseWriter, body []byte) {
	sent.Add(int64(len(body)))
	perSecond := rate.Load()
	if perSecond == 0 {
		w.Write(body)
		return
	}
	gone, began := 0, time.Now()
	for gone < len(body) {
		n, err := w.Write(body[gone:min(len(body), gone+256*1024)])
		if err != nil {
			return
		}
		gone += n
		time.Sleep(time.Until(began.Add(time.Duration(float64(gone) / float64(perSecond) * 1e9))))
	}
}

// checksums returns the elements in which results of S3 tell them.
func checksums(v *version) string {
	told := ""
	for name, value := range v.headers {
		if what, is := strings.CutPrefix(name, "X-Amz-Checksum-"); is && what != "Algorithm" {
			if what = strings.ToUpper(what); what == "TYPE" {
				what = "Type"
			}
			told += fmt.Sprintf("<Checksum%s>%s</Checksum%s>", what, value, what)
		}
	}
	return told
}

func onObject(w http.ResponseWriter, r *http.Request, b *bucket, name, key string, q url.Values) {
	switch {
	case q.Has("uploadId"):
		onUpload(w, r, b, key, q.Get("uploadId"), q)
	case q.Has("uploads"):
		count("CreateMultipartUpload")
		id := fmt.Sprintf("u%d", sequence.Add(1))
		mu.Lock()
		uploads[id] = &upload{bucket: name, key: key, at: time.Now().UTC(), headers: kept(r.Header), parts: map[int]*version{}}
		mu.Unlock()
		for _, name := range []string{"X-Amz-Checksum-Algorithm", "X-Amz-Checksum-Type"} {
			if value := r.Header.Get(name); value != "" {
				w.Header().Set(name, value)
			}
		}
		say(w, fmt.Sprintf("<InitiateMultipartUploadResult><Bucket>%s</Bucket><Key>%s</Key><UploadId>%s</UploadId></InitiateMultipartUploadResult>", name, escape(key), id))
	case q.Has("annotation"):
		count("ListObjectAnnotations")
		say(w, "<ListObjectAnnotationsResult></ListObjectAnnotationsResult>")
	case q.Has("tagging"):
		count("GetObjectTagging")
		say(w, "<Tagging><TagSet></TagSet></Tagging>")
	case r.Method == "PUT" && r.Header.Get("X-Amz-Copy-Source") != "":
		count("CopyObject")
		from := source(r)
		if from == nil {
			refuse(w, 404, "NoSuchKey")
			return
		}
		if from.size > 5<<30 {
			refuse(w, 400, "InvalidRequest")
			return
		}
		if !holds(r.Header.Get("X-Amz-Copy-Source-If-Match"), from) {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		v := *from
		v.at = time.Now().UTC()
		if r.Header.Get("X-Amz-Metadata-Directive") == "REPLACE" {
			v.headers = kept(r.Header)
			for name, value := range from.headers {
				if strings.HasPrefix(name, "X-Amz-Checksum-") {
					if v.headers == nil {
						v.headers = map[string]string{}
					}
					v.headers[name] = value
				}
			}
		}
		if !b.put(r, key, &v) {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		w.Header().Set("X-Amz-Version-Id", v.id)
		w.Header().Set("X-Amz-Copy-Source-Version-Id", from.id)
		say(w, fmt.Sprintf("<CopyObjectResult><ETag>&quot;%s&quot;</ETag><LastModified>%s</LastModified>%s</CopyObjectResult>", v.etag, v.at.Format(instant), checksums(&v)))
	case r.Method == "PUT":
		count("PutObject")
		v, err := receive(r)
		if err != nil {
			refuse(w, 400, "IncompleteBody")
			return
		}
		if !b.put(r, key, v) {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		show(w, v)
		w.Header().Set("Content-Length", "0")
	case r.Method == "DELETE":
		count("DeleteObject")
		id, ok := b.remove(key, q.Get("versionId"), r.Header.Get("If-Match"))
		if !ok {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		if id != "" {
			w.Header().Set("X-Amz-Version-Id", id)
			w.Header().Set("X-Amz-Delete-Marker", strconv.FormatBool(q.Get("versionId") == ""))
		}
		w.WriteHeader(204)
	default:
		count(r.Method)
		v := b.exact(key, q.Get("versionId"))
		if v == nil {
			refuse(w, 404, "NoSuchKey")
			return
		}
		if v.marker {
			refuse(w, 405, "MethodNotAllowed")
			return
		}
		if !holds(r.Header.Get("If-Match"), v) {
			refuse(w, 412, "PreconditionFailed")
			return
		}
		show(w, v)
		first, last := int64(0), v.size-1
		if asked, is := strings.CutPrefix(r.Header.Get("Range"), "bytes=-"); is {
			n, _ := strconv.ParseInt(asked, 10, 64)
			first = max(0, v.size-n)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, v.size))
		} else if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); n > 0 {
			last = min(last, v.size-1)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, last, v.size))
		}
		w.Header().Set("Content-Length", strconv.FormatInt(last+1-first, 10))
		if r.Header.Get("Range") != "" {
			// The checksum is that of the whole.
			for name := range v.headers {
				if strings.HasPrefix(name, "X-Amz-Checksum-") {
					w.Header().Del(name)
				}
			}
			w.WriteHeader(206)
		}
		if r.Method == "GET" && len(v.body) > 0 {
			send(w, v.body[first:last+1])
		}
	}
}

func admin(w http.ResponseWriter, what string, q url.Values) {
	switch what {
	case "fill":
		b := find(q.Get("bucket"), true)
		n, _ := strconv.Atoi(q.Get("n"))
		size, _ := strconv.Atoi(q.Get("size"))
		var body []byte
		if !q.Has("bodiless") {
			// Lines of text, for those who read by lines.
			body = bytes.Repeat([]byte(strings.Repeat("0", 127)+"\n"), size/128+1)[:size]
		}
		sum := md5.Sum(body)
		var headers map[string]string
		if q.Has("crc32") {
			told := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(body))
			headers = map[string]string{"X-Amz-Checksum-Crc32": base64.StdEncoding.EncodeToString(told), "X-Amz-Checksum-Type": "FULL_OBJECT"}
		}
		if q.Has("bodiless") {
			headers = map[string]string{"X-Amz-Checksum-Crc32": "AAAAAA==", "X-Amz-Checksum-Type": "FULL_OBJECT"}
		}
		for i := 0; i < n; i++ {
			v := &version{etag: hex.EncodeToString(sum[:]), size: int64(size), at: time.Now().UTC(), body: body, headers: headers}
			b.put(nil, fmt.Sprintf("%s%03d/obj-%08d.bin", q.Get("prefix"), i%100, i), v)
		}
		b.keys()
		// The garbage of filling is nothing that whoever is measured next should pay for.
		runtime.GC()
	case "reset":
		mu.Lock()
		buckets, uploads = map[string]*bucket{}, map[string]*upload{}
		mu.Unlock()
		runtime.GC()
	case "latency":
		d, _ := time.ParseDuration(q.Get("d"))
		latency.Store(int64(d))
	case "rate":
		perSecond, _ := strconv.ParseInt(q.Get("bytes"), 10, 64)
		rate.Store(perSecond)
	case "keep":
		n, _ := strconv.ParseInt(q.Get("bytes"), 10, 64)
		keep.Store(n)
	case "log":
		json.NewEncoder(w).Encode(map[string]any{"operations": journal.take()})
	case "zero":
		sent.Store(0)
		counts.Range(func(kind, _ any) bool { counts.Delete(kind); return true })
		mostIn.Store(0)
	case "stats":
		var used syscall.Rusage
		syscall.Getrusage(0, &used)
		requests := map[string]int64{}
		counts.Range(func(kind, n any) bool { requests[kind.(string)] = n.(*atomic.Int64).Load(); return true })
		cpu := float64(used.Utime.Sec+used.Stime.Sec) + float64(used.Utime.Usec+used.Stime.Usec)/1e6
		answer := map[string]any{"cpu_seconds": cpu, "most_in_flight": mostIn.Load(), "sent_bytes": sent.Load(), "requests": requests}
		if name := q.Get("bucket"); name != "" {
			keys := 0
			b := find(name, true)
			for _, key := range b.keys() {
				if b.current(key) != nil {
					keys++
				}
			}
			answer["keys"] = keys
		}
		json.NewEncoder(w).Encode(answer)
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	place := strings.TrimPrefix(r.URL.Path, "/")
	if what, ok := strings.CutPrefix(place, "_admin/"); ok {
		admin(w, what, r.URL.Query())
		return
	}
	now := inFlight.Add(1)
	defer inFlight.Add(-1)
	for seen := mostIn.Load(); now > seen && !mostIn.CompareAndSwap(seen, now); seen = mostIn.Load() {
	}
	if d := latency.Load(); d > 0 {
		time.Sleep(time.Duration(d))
	}
	w.Header().Set("X-Amz-Request-Id", "Y")
	name, key, _ := strings.Cut(place, "/")
	q := r.URL.Query()
	switch b := find(name, false); {
	case name == "":
		say(w, "<ListAllMyBucketsResult><Owner><ID>y</ID></Owner><Buckets></Buckets></ListAllMyBucketsResult>")
	case key == "":
		onBucket(w, r, name, q)
	case b == nil:
		refuse(w, 404, "NoSuchBucket")
	default:
		onObject(w, r, b, name, key, q)
	}
}

func main() {
	plain := flag.String("http", "127.0.0.1:0", "address for HTTP")
	secure := flag.String("https", "127.0.0.1:0", "address for HTTPS")
	cert := flag.String("cert", "", "certificate file")
	key := flag.String("key", "", "key file")
	flag.Parse()
	keep.Store(1 << 20)
	listen := func(address string) net.Listener {
		l, err := net.Listen("tcp", address)
		if err != nil {
			log.Fatal(err)
		}
		return l
	}
	one, two := listen(*plain), listen(*secure)
	fmt.Printf("{\"http\":%d,\"https\":%d}\n", one.Addr().(*net.TCPAddr).Port, two.Addr().(*net.TCPAddr).Port)
	opened := func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			count("connections")
		}
	}
	go func() { log.Fatal((&http.Server{Handler: http.HandlerFunc(serve)}).Serve(one)) }()
	// S3 speaks HTTP/1.1 only, so HTTP/2 is not offered.
	only1 := map[string]func(*http.Server, *tls.Conn, http.Handler){}
	server := &http.Server{Handler: http.HandlerFunc(serve), ConnState: opened, TLSNextProto: only1}
	log.Fatal(server.ServeTLS(two, *cert, *key))
}
