// The unmodified client through a bad network: every numbered entry once, in order, in one dump.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Browser } from './support/browser.js';
import { Proxy } from './support/proxy.js';
import { Server, until } from './support/server.js';

const SLOW = { entries: 300, perSecond: 100 };
const FAST = { entries: 900, perSecond: 300 };

let browser;

before(async () => {
    browser = await Browser.launch();
});

after(() => browser?.close());

/** Traces entries while `trouble` happens to the network, leaves, and checks the archive. */
async function checkNothingLost({ entries, perSecond, isBreakoutRoom = false }, trouble) {
    const server = await Server.start({ LIMITS_IDLE_S: 10 });
    const proxy = await Proxy.start(server.port);

    try {
        const page = await browser.open(proxy.port, { pingInterval: 30_000, isBreakoutRoom });

        await page.connected();
        const tracing = page.traceEntries(entries, perSecond);

        await trouble({ page, proxy, server });
        await tracing;
        // A client that has not yet noticed the last cut still calls itself connected, and would leave unheard.
        await until('the client is back', async () => proxy.open > 0 && await page.isConnected());
        await page.left();
        const numbered = await page.numbered();
        const firstSent = linesByNumber(await page.sent());
        const { lines } = await server.onlyDump();

        assert.ok(proxy.accepted > 1, 'the network was never cut');
        assert.deepEqual(lines.map(numberOf), Array.from({ length: numbered }, (_, index) => index + 1));
        assert.deepEqual(lines, [ ...firstSent.values() ]);
        await page.close();
    } catch (error) {
        console.error(server.log.join('\n'));
        throw error;
    } finally {
        proxy.close();
        await server.remove();
    }
}

/** What the client sent, by number; a replay must repeat it. */
function linesByNumber(frames) {
    const lines = new Map();

    for (const frame of frames) {
        const { type, data } = JSON.parse(frame);

        if (data !== undefined) {
            const line = type === 'identity' ? JSON.stringify(data) : data;
            const number = numberOf(line);

            assert.equal(lines.get(number) ?? line, line, 'a replay differs');
            lines.set(number, line);
        }
    }

    return new Map([ ...lines ].sort(([ a ], [ b ]) => a - b));
}

function numberOf(line) {
    return JSON.parse(line).at(-1);
}

/** Waits until the client has traced so many entries. */
function traced(page, count) {
    return until(`${count} entries`, async () => await page.numbered() >= count);
}

test('a reset in mid-stream', () => checkNothingLost(SLOW, async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.reset();
}));

test('several resets, the last ones while the client comes back', () => checkNothingLost(SLOW, async ({ page, proxy }) => {
    await traced(page, 50);
    proxy.reset();
    const before = proxy.accepted;

    await until('the client connects', () => proxy.accepted > before);
    proxy.reset();
    await until('the client connects', () => proxy.accepted > before + 1);
    await traced(page, 200);
    proxy.reset();
}));

test('many resets of a busy client', () => checkNothingLost(FAST, async ({ page, proxy }) => {
    for (let count = 100; count <= 900; count += 200) {
        await traced(page, count);
        proxy.reset();
    }
}));

test('a network that refuses at first', () => checkNothingLost(SLOW, async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.refuse();
    proxy.reset();
    const closed = (await page.closes()).length;

    await until('an attempt is refused', async () => (await page.closes()).length > closed);
    await proxy.accept();
}));

test('a network that stalls and is cut', () => checkNothingLost(SLOW, async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.stall();
    await traced(page, 200);
    proxy.reset();
    proxy.resume();
}));

test('a half close', () => checkNothingLost(SLOW, async ({ page, proxy }) => {
    await traced(page, 100);
    proxy.halfClose();
}));

test('a restart of the server', () => checkNothingLost(SLOW, async ({ page, server }) => {
    await traced(page, 100);
    await server.end('SIGTERM');
    await server.run();
}));

test('a kill of the server', () => checkNothingLost(SLOW, async ({ page, server }) => {
    await traced(page, 100);
    await server.end('SIGKILL');
    await server.run();
}));

// The client has a new id each time, and the server finds the dump all the same.
test('resets in a breakout room', () => checkNothingLost({ ...SLOW, isBreakoutRoom: true }, async ({ page, proxy }) => {
    for (const count of [ 5, 150, 250 ]) {
        await traced(page, count);
        const before = proxy.accepted;

        proxy.reset();
        await until('the client is back', () => proxy.accepted > before);
    }
}));
