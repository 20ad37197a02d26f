// Drives the published JavaScript SDK: commands come in as lines of JSON, what happens goes out so.
import { createInterface } from 'node:readline';
import { Centrifuge } from 'centrifuge';
import WebSocket from 'ws';

const tell = (event, rest) => console.log(JSON.stringify({ event, ...rest }));
const client = new Centrifuge(process.argv[2], { websocket: WebSocket, minReconnectDelay: 20, maxReconnectDelay: 200 });
const subscriptions = {};

client.on('connected', (ctx) => tell('connected', { client: ctx.client }));
client.on('connecting', (ctx) => tell('connecting', { code: ctx.code, reason: ctx.reason }));
client.on('disconnected', (ctx) => tell('disconnected', { code: ctx.code, reason: ctx.reason }));
client.on('message', (ctx) => tell('message', { data: ctx.data }));
client.on('error', () => {});

const run = {
  connect: () => client.connect(),
  subscribe: ({ channel }) => {
    const subscription = client.newSubscription(channel, { minResubscribeDelay: 20, maxResubscribeDelay: 200 });
    subscriptions[channel] = subscription;
    subscription.on('publication', (ctx) => tell('publication', { channel, data: ctx.data, offset: ctx.offset }));
    subscription.on('subscribed', (ctx) =>
      tell('subscribed', { channel, recovered: ctx.recovered, wasRecovering: ctx.wasRecovering }));
    subscription.on('subscribing', (ctx) => tell('subscribing', { channel, code: ctx.code }));
    subscription.on('unsubscribed', (ctx) => tell('unsubscribed', { channel, code: ctx.code }));
    subscription.on('error', (ctx) => tell('error', { channel, code: ctx.error.code }));
    subscription.subscribe();
  },
  publish: async ({ channel, data }) => tell('published', { result: await client.publish(channel, data) }),
  presence: async ({ channel }) => tell('presence', { clients: Object.keys((await subscriptions[channel].presence()).clients) }),
  history: async ({ channel }) => {
    const found = await subscriptions[channel].history({ limit: 10 });
    tell('history', { data: found.publications.map((each) => each.data) });
  },
  rpc: async ({ method, data }) => tell('rpc', { data: (await client.rpc(method, data)).data }),
  unsubscribe: ({ channel }) => subscriptions[channel].unsubscribe(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { do: name, ...rest } = JSON.parse(line);
  Promise.resolve(run[name](rest)).catch((error) => tell('failed', { do: name, code: error.code, message: error.message }));
}
client.disconnect();
process.exit(0);
