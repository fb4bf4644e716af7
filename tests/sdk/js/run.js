// node run.js VERSION SCENARIO: ends with 0, or with 1 and the reason on stderr.

import { createRequire } from 'node:module';

import * as scenarios from './scenarios.js';
import * as faults from './faults.js';
import * as tokens from './tokens.js';
import * as events from './events.js';

const [version, name] = process.argv.slice(2);
const packages = { current: 'centrifuge', older: 'centrifuge-old' };
const build = process.env.ROOMWIRE_FORMAT === 'protobuf' ? '/build/protobuf' : '';
const { Centrifuge } = createRequire(import.meta.url)(packages[version] + build);

try {
  await { ...scenarios, ...faults, ...tokens, ...events }[name](Centrifuge);
  process.exit(0);
} catch (error) {
  console.error(error);
  process.exit(1);
}
