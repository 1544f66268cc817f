// The page: the npm package as it is, two real peer connections, and a way for a test to steer them.

import { sent } from './recorder.js';
import rtcStatsInit from '@jitsi/rtcstats/rtcstats.js';
import traceInit from '@jitsi/rtcstats/trace-ws.js';

const closes = [];
const connections = [];
let trace;
let numbered = 0;

/** Hooks the client up and connects it. Everything it traces from now on is counted. */
function start({ endpoint, pollInterval = 500, pingInterval = 1000, isBreakoutRoom = false }) {
    trace = traceInit({
        endpoint,
        meetingFqn: 'browser-test',
        pingInterval,
        onCloseCallback: event => closes.push(event.code)
    });
    const counted = call => (...data) => {
        numbered++;
        call(...data);
    };
    const { statsEntry, identity } = trace;

    trace.statsEntry = counted(statsEntry);
    trace.identity = counted(identity);
    rtcStatsInit(trace, { pollInterval, sendSdp: true });
    trace.connect(isBreakoutRoom);
    trace.identity('identity', null, {
        applicationName: 'browser test',
        confName: 'browser-test@conference.localhost',
        displayName: 'Zoë \u{1f399} "quoted" \\ \u2028',
        endpointId: 'abcd1234'
    });
}

/** Connects two peer connections to each other, audio and video both ways, and lets them run. */
async function call(milliseconds) {
    const media = await navigator.mediaDevices.getUserMedia({
        audio: true,
        video: { width: 640, height: 360 }
    });
    const pair = [ new RTCPeerConnection(), new RTCPeerConnection() ];

    connections.push(...pair);
    pair.forEach((pc, index) => {
        pc.onicecandidate = ({ candidate }) => candidate && pair[1 - index].addIceCandidate(candidate);
        pc.ontrack = ({ track }) => play(track);
        media.getTracks().forEach(track => pc.addTrack(track, media));
    });
    const [ caller, callee ] = pair;
    const offer = await caller.createOffer();

    await Promise.all([ caller.setLocalDescription(offer), callee.setRemoteDescription(offer) ]);
    const answer = await callee.createAnswer();

    await Promise.all([ callee.setLocalDescription(answer), caller.setRemoteDescription(answer) ]);
    while (pair.some(pc => pc.connectionState !== 'connected')) {
        await pause(50);
    }
    await pause(milliseconds);
}

/** A track that nobody plays is not decoded. */
function play(track) {
    const element = document.createElement(track.kind);

    element.srcObject = new MediaStream([ track ]);
    element.muted = true;
    element.autoplay = true;
    document.body.append(element);
}

/** What the page itself sees of each peer connection now: all reports, as plain objects. */
function observe() {
    return Promise.all(connections.map(async pc => [ ...(await pc.getStats()).values() ]));
}

/** Traces `count` entries, `perSecond` of them a second. */
async function traceEntries(count, perSecond) {
    const began = performance.now();

    for (let index = 0; index < count; index++) {
        while (performance.now() - began < index * 1000 / perSecond) {
            await pause(1);
        }
        trace.statsEntry('browserTest', null, { index, text: 'x'.repeat(index % 300) });
    }
}

/** Ends the call and the session as an application does when it leaves. */
function leave() {
    connections.forEach(pc => pc.close());
    trace.close();
}

function pause(milliseconds) {
    return new Promise(resolve => {
        setTimeout(resolve, milliseconds);
    });
}

window.page = {
    start, call, observe, traceEntries, leave,
    isConnected: () => trace.isConnected(),
    sent: () => sent,
    closes: () => closes,
    numbered: () => numbered
};
