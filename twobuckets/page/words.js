// What the page says, in the languages that it speaks. To add one, add a table with the same names;
// what a table lacks is said in English. {name} is filled in, and where there are several forms,
// `Intl.PluralRules` chooses by n.
const WORDS = {
  en: {
    title: { one: 'Upload a file', other: 'Upload files' },
    forKey: 'For {key}',
    terms: 'Files of up to {size}, until {until}.',
    termsMany: { one: 'One file of up to {size}, until {until}.', other: 'Up to {n} files of up to {size} each, until {until}.' },
    termsTypes: 'Types: {types}.',
    termsExact: 'One file of exactly {size}, until {until}.',
    termsOpen: 'Until {until}.',
    dropHere: { one: 'Drop the file here, or', other: 'Drop files or folders here, or' },
    chooseFiles: { one: 'Choose file', other: 'Choose files' },
    chooseFolder: 'Choose folder',
    interrupted: 'Interrupted',
    chooseAgain: 'Choose the same file again, and it continues where it stopped.',
    keptOf: '{sent} of {size} arrived earlier',
    keptSent: '{sent} arrived earlier',
    overall: { one: '{done} of {n} file received', other: '{done} of {n} files received' },
    pause: 'Pause', resume: 'Continue', retry: 'Try again', cancel: 'Cancel', discard: 'Discard',
    saveReceipt: 'Save a receipt',
    receiptName: 'receipt.txt',
    receiptTitle: 'Files received',
    about: '{action}: {path}',
    waiting: 'Waiting',
    starting: 'Starting',
    comparing: 'Comparing with what arrived earlier',
    running: '{sent} of {size} · {rate}/s',
    runningLeft: '{sent} of {size} · {rate}/s · {left} left',
    finishing: 'Finishing',
    paused: 'Paused',
    cancelled: 'Cancelled',
    received: 'Received',
    receivedWaiting: 'Received, waiting to be processed',
    receivedLate: 'Received; not processed yet. You can close this page.',
    processed: 'Received and processed',
    trouble: 'The connection is bad; trying again',
    offline: 'You are offline; it continues by itself',
    allReceived: { one: 'The file was received.', other: 'All {n} files were received.' },
    allProcessed: { one: 'The file was received and processed.', other: 'All {n} files were received and processed.' },
    someFailed: { one: '{n} file was not received.', other: '{n} files were not received.' },
    changed: 'The file changed or can no longer be read. Choose it again.',
    network: 'The connection failed too often. Try again.',
    cors: 'The storage takes no files from this page. Tell whoever sent it to you that the CORS rules of the bucket {bucket} lack the origin {origin}.',
    clock: 'The clock of the computer that made this page is wrong. Ask for a new page.',
    expiredPage: 'This page has expired. Ask for a new one.',
    ended: 'This upload has ended: the file has arrived, or the upload was given up. Ask for a new page to send another file.',
    unsure: 'The connection broke at the very end, and the file has probably arrived. Ask before you send it again.',
    taken: 'Another file is waiting under this name. Ask for a new page.',
    wrongSize: 'This page takes a file of exactly {size}; this one has {has}.',
    wrongType: 'Only files of these types can be sent here: {types}.',
    tooLarge: 'Larger than {size}, which is the most that can be sent here.',
    otherTab: 'This file is being sent in another tab.',
    differs: 'What arrived is not what was sent. Tell whoever sent you this page.',
    incomplete: 'Not all of the file has arrived. Try again.',
    refused: 'The storage refused it ({code}).',
    'refusal-no-link': 'This link is incomplete, does not exist or was withdrawn. Ask for a new one.',
    'refusal-link-expired': 'This link has expired. Ask for a new one.',
    'refusal-too-many-files': 'This link has had all the files that it was good for.',
    'refusal-name-too-long': 'The name of the file, with its folders, is too long.',
    tooOld: 'This browser is too old for this page.',
  },
  de: {
    title: { one: 'Datei hochladen', other: 'Dateien hochladen' },
    forKey: 'Für {key}',
    terms: 'Dateien bis {size}, bis {until}.',
    termsMany: { one: 'Eine Datei bis {size}, bis {until}.', other: 'Bis zu {n} Dateien von je bis zu {size}, bis {until}.' },
    termsTypes: 'Dateitypen: {types}.',
    termsExact: 'Eine Datei von genau {size}, bis {until}.',
    termsOpen: 'Bis {until}.',
    dropHere: { one: 'Die Datei hierher ziehen oder', other: 'Dateien oder Ordner hierher ziehen oder' },
    chooseFiles: { one: 'Datei auswählen', other: 'Dateien auswählen' },
    chooseFolder: 'Ordner auswählen',
    interrupted: 'Unterbrochen',
    chooseAgain: 'Wählen Sie dieselbe Datei noch einmal aus; es geht dort weiter, wo es aufgehört hat.',
    keptOf: '{sent} von {size} sind schon angekommen',
    keptSent: '{sent} sind schon angekommen',
    overall: { one: '{done} von {n} Datei angekommen', other: '{done} von {n} Dateien angekommen' },
    pause: 'Anhalten', resume: 'Fortsetzen', retry: 'Noch einmal', cancel: 'Abbrechen', discard: 'Verwerfen',
    saveReceipt: 'Beleg speichern',
    receiptName: 'beleg.txt',
    receiptTitle: 'Angekommene Dateien',
    about: '{action}: {path}',
    waiting: 'Wartet',
    starting: 'Beginnt',
    comparing: 'Wird mit dem verglichen, was schon angekommen ist',
    running: '{sent} von {size} · {rate}/s',
    runningLeft: '{sent} von {size} · {rate}/s · noch {left}',
    finishing: 'Wird abgeschlossen',
    paused: 'Angehalten',
    cancelled: 'Abgebrochen',
    received: 'Angekommen',
    receivedWaiting: 'Angekommen, wartet auf die Verarbeitung',
    receivedLate: 'Angekommen, noch nicht verarbeitet. Sie können diese Seite schließen.',
    processed: 'Angekommen und verarbeitet',
    trouble: 'Die Verbindung ist schlecht; neuer Versuch',
    offline: 'Keine Verbindung; es geht von selbst weiter',
    allReceived: { one: 'Die Datei ist angekommen.', other: 'Alle {n} Dateien sind angekommen.' },
    allProcessed: { one: 'Die Datei ist angekommen und verarbeitet.', other: 'Alle {n} Dateien sind angekommen und verarbeitet.' },
    someFailed: { one: '{n} Datei ist nicht angekommen.', other: '{n} Dateien sind nicht angekommen.' },
    changed: 'Die Datei hat sich geändert oder ist nicht mehr lesbar. Wählen Sie sie noch einmal aus.',
    network: 'Die Verbindung ist zu oft abgebrochen. Versuchen Sie es noch einmal.',
    cors: 'Der Speicher nimmt von dieser Seite keine Dateien an. Sagen Sie dem, der sie Ihnen geschickt hat, dass in den CORS-Regeln des Buckets {bucket} die Herkunft {origin} fehlt.',
    clock: 'Die Uhr des Computers, auf dem diese Seite entstand, geht falsch. Bitten Sie um eine neue Seite.',
    expiredPage: 'Diese Seite ist abgelaufen. Bitten Sie um eine neue.',
    ended: 'Dieser Vorgang ist beendet: Die Datei ist angekommen, oder er wurde aufgegeben. Bitten Sie für eine weitere Datei um eine neue Seite.',
    unsure: 'Die Verbindung brach ganz am Ende ab; die Datei ist wahrscheinlich angekommen. Fragen Sie nach, bevor Sie sie noch einmal senden.',
    taken: 'Unter diesem Namen wartet eine andere Datei. Bitten Sie um eine neue Seite.',
    wrongSize: 'Diese Seite nimmt eine Datei von genau {size}; diese hat {has}.',
    wrongType: 'Hier können nur Dateien dieser Typen gesendet werden: {types}.',
    tooLarge: 'Größer als {size}; mehr kann hier nicht gesendet werden.',
    otherTab: 'Diese Datei wird in einem anderen Tab gesendet.',
    differs: 'Angekommen ist etwas anderes, als gesendet wurde. Sagen Sie es dem, der Ihnen diese Seite geschickt hat.',
    incomplete: 'Die Datei ist nicht vollständig angekommen. Versuchen Sie es noch einmal.',
    refused: 'Der Speicher hat sie abgelehnt ({code}).',
    'refusal-no-link': 'Dieser Link ist unvollständig, es gibt ihn nicht oder er wurde zurückgezogen. Bitten Sie um einen neuen.',
    'refusal-link-expired': 'Dieser Link ist abgelaufen. Bitten Sie um einen neuen.',
    'refusal-too-many-files': 'Mit diesem Link wurden schon so viele Dateien gesendet, wie er erlaubt.',
    'refusal-name-too-long': 'Der Name der Datei mit ihren Ordnern ist zu lang.',
    tooOld: 'Dieser Browser ist zu alt für diese Seite.',
  },
}
const LANGUAGE = navigator.languages.map(tag => tag.slice(0, 2)).find(tag => tag in WORDS) ?? 'en'
const LOCALE = navigator.languages.find(tag => tag.startsWith(LANGUAGE)) ?? LANGUAGE
const PLURALS = new Intl.PluralRules(LANGUAGE)

function say(name, values = {}) {
  let form = WORDS[LANGUAGE][name] ?? WORDS.en[name]
  if (typeof form !== 'string') form = form[PLURALS.select(values.n)] ?? form.other
  return form.replace(/\{(\w+)\}/g, (_, word) => values[word])
}

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
function sayBytes(bytes) {
  let unit = 0
  while (bytes >= 1024 && unit < UNITS.length - 1) { bytes /= 1024; unit++ }
  const digits = unit && bytes < 100 ? 1 : 0
  return `${bytes.toLocaleString(LOCALE, { maximumFractionDigits: digits })} ${UNITS[unit]}`
}
function saySeconds(seconds) {
  const [amount, unit] = seconds < 90 ? [seconds, 'second'] : seconds < 5400 ? [seconds / 60, 'minute'] : [seconds / 3600, 'hour']
  return Math.ceil(amount).toLocaleString(LOCALE, { style: 'unit', unit, unitDisplay: 'short' })
}
function sayInstant(seconds) {
  return new Date(seconds * 1000).toLocaleString(LOCALE, { dateStyle: 'long', timeStyle: 'short' })
}
