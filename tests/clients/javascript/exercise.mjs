// Exercises both store clients of the official JavaScript client, and prints what came back as JSON.
//
//     node exercise.mjs URL TOKEN OTHER_TOKEN CROWDED_STORE_ID
//
// It asserts nothing: test_clients_javascript.py compares. A Buffer is printed as {base64}.
import { Readable } from 'node:stream';
import { ApifyClient } from 'apify-client';

const [url, token, otherToken, crowdedStoreId] = process.argv.slice(2);

const TEXT = 'text/plain; charset=utf-8';
const HTML = 'text/html; charset=utf-8';

// 110 KB that compress well, and 100 KB that do not: a linear congruential generator's high bytes.
const LONG_TEXT = Array.from({ length: 3000 }, (_, number) => `line ${number} of a text that compresses\n`).join('');
const NOISE = Buffer.alloc(100_000);
for (let index = 0, state = 1; index < NOISE.length; index += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    NOISE[index] = state >>> 24;
}

// Without retries, which would hide a fault.
const clientOf = (who) => new ApifyClient({ token: who, baseUrl: url, publicBaseUrl: url, maxRetries: 0 });

// The resource with a note of which of its methods were called.
function watched(resource) {
    const called = new Set();
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(resource)).filter((name) => name !== 'constructor');
    const handler = {
        get(target, name) {
            if (methods.includes(name)) called.add(name);
            const value = target[name];
            return typeof value === 'function' ? value.bind(target) : value;
        },
    };
    return { resource: new Proxy(resource, handler), methods, called };
}

const neverCalled = ({ methods, called }) => methods.filter((name) => !called.has(name));

async function outcome(promise) {
    try {
        return { value: await promise };
    } catch (error) {
        return { error: { status: error.statusCode, type: error.type } };
    }
}

async function fetched(address, options) {
    const answer = await fetch(address, options);
    return { status: answer.status, body: await answer.text() };
}

async function encodingOf(address) {
    const answer = await fetch(address, { headers: { 'Accept-Encoding': 'br' } });
    await answer.text();
    return answer.headers.get('content-encoding');
}

async function collected(iterable) {
    const items = [];
    for await (const item of iterable) items.push(item);
    return items;
}

async function streamed(stream) {
    return Buffer.concat(await collected(stream));
}

const keysOf = (items) => items.map(({ key }) => key);

const VALUES = {
    object: { value: { a: { b: [1, 2.5, true, null] }, text: 'žluť' } },
    array: { value: [1, 'two', null] },
    number: { value: 42 },
    boolean: { value: false },
    null: { value: null },
    string: { value: 'příliš' },
    xml: { value: '<a/>', contentType: 'application/xml' },
    html: { value: '<p>small</p>', contentType: HTML },
    buffer: { value: Buffer.from([0, 255, 128]) },
    typed: { value: Buffer.from([1, 2, 3]), contentType: 'image/png' },
    empty: { value: Buffer.alloc(0) },
    emptyString: { value: '' },
    longObject: { value: { long: LONG_TEXT } },
    longString: { value: LONG_TEXT },
    longBuffer: { value: Buffer.from(LONG_TEXT) },
    noise: { value: NOISE },
};

async function values(store) {
    const results = {};
    for (const [key, record] of Object.entries(VALUES)) {
        await store.setRecord({ key, ...record });
        const parsed = await store.getRecord(key);
        const raw = await store.getRecord(key, { buffer: true });
        const stream = await store.getRecord(key, { stream: true });
        results[key] = {
            parsed,
            raw: Buffer.from(raw.value),
            streamed: await streamed(stream.value),
            contentType: raw.contentType,
        };
    }
    return results;
}

async function streams(store) {
    const key = 'stream';
    const pieces = Array.from({ length: 100 }, (_, piece) => NOISE.subarray(piece * 1000, (piece + 1) * 1000));
    await store.setRecord({ key, value: Readable.from(pieces), contentType: 'video/mp4' });
    const { value, contentType } = await store.getRecord(key, { stream: true });
    return { same: (await streamed(value)).equals(NOISE), contentType };
}

async function keys() {
    const store = clientOf(token).keyValueStore(crowdedStoreId);
    return {
        all: keysOf(await collected(store.listKeys())),
        limited: keysOf(await collected(store.listKeys({ limit: 1500 }))),
        pastTheMaximum: keysOf(await collected(store.listKeys({ limit: 2400 }))),
        prefixed: keysOf(await collected(store.listKeys({ prefix: 'key-12' }))),
        startAbsent: keysOf(await collected(store.listKeys({ exclusiveStartKey: 'key-2398-not-there' }))),
        noLimit: (await store.listKeys({ limit: 0 })).items.length,
        page: await store.listKeys({ limit: 2, exclusiveStartKey: 'key-0099', prefix: 'key-0' }),
    };
}

async function publicUrls(store, storeId) {
    const bare = clientOf(undefined).keyValueStore(storeId);
    const recordUrl = await store.getRecordPublicUrl('string');
    const keysUrl = await store.createKeysPublicUrl({ limit: 2, prefix: 'long', expiresInSecs: 60 });
    const signature = (address) => new URL(address).searchParams.get('signature');
    const items = JSON.parse((await fetched(keysUrl)).body).data.items;
    return {
        record: await fetched(recordUrl),
        unsigned: (await fetched(recordUrl.split('?')[0])).status,
        keys: keysOf(items),
        listed: (await fetched(items[0].recordPublicUrl)).body === LONG_TEXT,
        compressedAs: await encodingOf(await store.getRecordPublicUrl('longString')),
        forever: (await fetched(await store.createKeysPublicUrl())).status,
        expired: await fetched(await store.createKeysPublicUrl({ expiresInSecs: -1 })),
        recordBySignature: await bare.getRecord('string', { signature: signature(recordUrl) }),
        keysBySignature: keysOf((await bare.listKeys({ signature: signature(keysUrl), prefix: 'number' })).items),
        anothersSignature: await outcome(bare.getRecord('object', { signature: signature(recordUrl) })),
    };
}

async function refusals(storeId) {
    const results = {};
    for (const [who, theirs] of Object.entries({ nobody: undefined, wrong: 'wrong', other: otherToken })) {
        const store = clientOf(theirs).keyValueStore(storeId);
        results[who] = {
            get: await outcome(store.get()),
            update: await outcome(store.update({ title: 'x' })),
            delete: await outcome(store.delete()),
            listKeys: await outcome(store.listKeys()),
            getRecord: await outcome(store.getRecord('string')),
            recordExists: await outcome(store.recordExists('string')),
            setRecord: await outcome(store.setRecord({ key: 'a', value: 1 })),
            deleteRecord: await outcome(store.deleteRecord('string')),
        };
    }
    return results;
}

async function absences(store) {
    const absent = clientOf(token).keyValueStore('a'.repeat(17));
    return {
        record: (await store.getRecord('absent')) === undefined,
        stream: await outcome(store.getRecord('absent', { stream: true })),
        exists: await store.recordExists('absent'),
        deleteRecord: await outcome(store.deleteRecord('absent')),
        store: (await absent.get()) === undefined,
        storeRecord: (await absent.getRecord('a')) === undefined,
        storeExists: await absent.recordExists('a'),
        deleteStore: await outcome(absent.delete()),
        listKeys: await outcome(absent.listKeys()),
        setRecord: await outcome(absent.setRecord({ key: 'a', value: 1 })),
    };
}

async function collection() {
    const walked = watched(clientOf(otherToken).keyValueStores());
    const stores = walked.resource;
    const schema = {
        actorKeyValueStoreSchemaVersion: 1,
        title: 'pages '.repeat(1000), // long enough for the client to compress the body
        collections: { pages: { title: 'Pages', keyPrefix: 'page-', contentTypes: ['text/html'] } },
    };
    const made = [];
    for (const name of ['js-0', 'js-1', 'js-2', 'js-3']) made.push(await stores.getOrCreate(name));
    made.push(await stores.getOrCreate('js-4', { schema }));
    const unnamed = await stores.getOrCreate();
    const withSchema = clientOf(otherToken).keyValueStore(made[4].id);
    await withSchema.setRecord({ key: 'page-1', value: '<p>1</p>', contentType: HTML });
    await withSchema.setRecord({ key: 'other', value: 1 });
    const names = (items) => items.map(({ name }) => name ?? null).filter((name) => !name || name.startsWith('js-'));
    const all = await stores.list({ offset: 0, limit: 1000 });
    return {
        names: names(made),
        schema: made[4].schema,
        keysOfCollection: keysOf(await collected(withSchema.listKeys({ collection: 'pages' }))),
        wrongType: await outcome(withSchema.setRecord({ key: 'page-2', value: { no: 'page' } })),
        again: (await stores.getOrCreate('js-0')).id === made[0].id,
        createdAtIsDate: made[0].createdAt instanceof Date,
        listed: names(all.items),
        counts: [all.count - all.items.length, all.total - all.items.length, all.offset, all.limit],
        descending: names((await stores.list({ desc: true, limit: 3 })).items),
        lastTwo: names((await stores.list({ offset: all.total - 2 })).items),
        iterated: names(await collected(stores.list())),
        iteratedDescending: names(await collected(stores.list({ desc: true, limit: 4 }))),
        unnamedIsLast: (await stores.list({ unnamed: true })).items.at(-1).id === unnamed.id,
        unnamedIsLeftOut: !all.items.some(({ id }) => id === unnamed.id),
        mine: names((await stores.list({ ownership: 'ownedByMe' })).items),
        shared: (await stores.list({ ownership: 'sharedWithMe' })).items,
        neverCalled: neverCalled(walked),
    };
}

async function runs() {
    const client = clientOf(token);
    const first = await client.actor('joe/js-actor').start({ first: 1 });
    const second = await client.actor('joe/js-actor').start({ second: 2 });
    const ofTask = await client.task('joe/js-task').start({ third: 3 });
    const store = client.run(first.id).keyValueStore();
    await store.setRecord({ key: 'OUTPUT', value: { long: LONG_TEXT } });
    const last = (resource, options) => resource.lastRun(options).keyValueStore();
    const actor = client.actor('joe/js-actor');
    return {
        sameStore: (await store.get()).id === first.defaultKeyValueStoreId,
        keys: keysOf(await collected(store.listKeys())),
        input: (await store.getRecord('INPUT')).value,
        output: (await client.keyValueStore(first.defaultKeyValueStoreId).getRecord('OUTPUT')).value,
        exists: await store.recordExists('OUTPUT'),
        lastIsSecond: (await last(actor).get()).id === second.defaultKeyValueStoreId,
        lastInput: (await last(actor, { status: 'SUCCEEDED', origin: 'API' }).getRecord('INPUT')).value,
        noneAborted: (await last(actor, { status: 'ABORTED' }).get()) === undefined,
        lastOfTask: (await last(client.task('joe/js-task')).get()).id === ofTask.defaultKeyValueStoreId,
        me: (await client.user().get()).username,
    };
}

async function wholeLife() {
    const client = clientOf(token);
    const { id } = await client.keyValueStores().getOrCreate();
    const walked = watched(client.keyValueStore(id));
    const store = walked.resource;
    const results = {
        values: await values(store),
        stored: Object.fromEntries((await store.listKeys()).items.map(({ key, size }) => [key, size])),
        streams: await streams(store),
        publicUrls: await publicUrls(store, id),
        refusals: await refusals(id),
        absences: await absences(store),
        longHtml: await outcome(store.setRecord({ key: 'page', value: LONG_TEXT, contentType: HTML })),
        badKey: await outcome(store.setRecord({ key: 'a~b', value: 1 })),
        exists: await store.recordExists('string'),
    };
    await store.deleteRecord('string');
    results.existsNoMore = await store.recordExists('string');
    results.updated = await store.update({ name: 'js-renamed', title: 'T', generalAccess: 'ANYONE_WITH_ID_CAN_READ' });
    results.byName = (await client.keyValueStore('joe/js-renamed').get()).id === id;
    results.publicly = await outcome(clientOf(undefined).keyValueStore(id).getRecord('number'));
    await store.delete();
    results.gone = (await store.get()) === undefined;
    results.neverCalled = neverCalled(walked);
    return results;
}

const results = { store: await wholeLife(), keys: await keys(), collection: await collection(), runs: await runs() };
const printable = (_, value) => (value?.type === 'Buffer' ? { base64: Buffer.from(value.data).toString('base64') } : value);
// The client leaves the 404 of an absent record's stream unread: its socket would keep node alive until the
// server's keep-alive ends, 75 s later.
process.stdout.write(JSON.stringify(results, printable), () => process.exit());
