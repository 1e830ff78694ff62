// Crawlee's local storage as a program: `write DIR [with-metadata]` makes a store, `read DIR NAME` prints one.
import { MemoryStorage } from '@crawlee/memory-storage';

const [command, localDataDirectory, option] = process.argv.slice(2);
const writeMetadata = option === 'with-metadata';
const storage = new MemoryStorage({ localDataDirectory, writeMetadata, persistStorage: true });

const RECORDS = [
    { key: 'INPUT', value: { startUrls: ['https://example.com/ä'] } },
    { key: 'text', value: 'héllo\n' },
    { key: 'bytes', value: Buffer.from([0, 255, 1]) },
    { key: 'page', value: '<p>ü</p>', contentType: 'text/html; charset=utf-8' },
    { key: 'shot', value: Buffer.from([0x89, 0x50]), contentType: 'image/png' },
    { key: 'photo', value: Buffer.from([0xff, 0xd8]), contentType: 'image/jpeg' },
    { key: 'v1.2', value: { version: 2 } },
    { key: 'doc.json', value: 'a text', contentType: 'text/plain; charset=utf-8' },
    { key: 'unknown', value: Buffer.from('x'), contentType: 'application/x-nobody-knows' },
    { key: "what's(this)!-_", value: 'odd' },
    { key: '..', value: 'dots' },
];

if (command === 'write') {
    const { id } = await storage.keyValueStores().getOrCreate('default');
    for (const record of RECORDS) await storage.keyValueStore(id).setRecord(record);
} else {
    const { id } = await storage.keyValueStores().getOrCreate(option);
    const store = storage.keyValueStore(id);
    const found = {};
    for (const { key } of (await store.listKeys()).items) {
        const { value, contentType } = await store.getRecord(key, { buffer: true });
        found[key] = { bytes: value.toString('base64'), type: contentType };
    }
    console.log(JSON.stringify(found));
}
