// magenta.js's MusicVAE under Node, as `node bench.js --backend wasm --batch 64 --seconds .5`: `benchmarks/run.py` tells
// it when.
//
// It answers each line of its input as `peers/turns.py` has it. What is timed is `sampleTensors`, until its tokens have
// arrived. The network has the shapes of Magenta's mel_2bar_small and random weights, made here in the checkpoint format
// that magenta.js loads; sampling takes as long whatever the weights.

const http = require('http');
const readline = require('readline');
const {parseArgs} = require('util');
const {performance} = require('perf_hooks');

const {values: options} = parseArgs({options: {
  backend: {type: 'string', default: 'wasm'}, // cpu (plain JavaScript) or wasm
  batch: {type: 'string', default: '1'},
  seconds: {type: 'string', default: '0.5'},
}});

const ENCODER = 'encoder/cell_0/bidirectional_rnn';
const DECODER = 'decoder/multi_rnn_cell';
const SHAPES = {
  [`${ENCODER}/fw/multi_rnn_cell/cell_0/lstm_cell/kernel`]: [602, 2048],
  [`${ENCODER}/fw/multi_rnn_cell/cell_0/lstm_cell/bias`]: [2048],
  [`${ENCODER}/bw/multi_rnn_cell/cell_0/lstm_cell/kernel`]: [602, 2048],
  [`${ENCODER}/bw/multi_rnn_cell/cell_0/lstm_cell/bias`]: [2048],
  'encoder/mu/kernel': [1024, 256],
  'encoder/mu/bias': [256],
  'encoder/sigma/kernel': [1024, 256],
  'encoder/sigma/bias': [256],
  'decoder/z_to_initial_state/kernel': [256, 1024],
  'decoder/z_to_initial_state/bias': [1024],
  [`${DECODER}/cell_0/lstm_cell/kernel`]: [602, 1024],
  [`${DECODER}/cell_0/lstm_cell/bias`]: [1024],
  [`${DECODER}/cell_1/lstm_cell/kernel`]: [512, 1024],
  [`${DECODER}/cell_1/lstm_cell/bias`]: [1024],
  'decoder/output_projection/kernel': [256, 90],
  'decoder/output_projection/bias': [90],
};

// A checkpoint's three files by their path on the server. Kernels are uniform in ±sqrt(6 / (rows + columns)), biases zero.
function checkpoint() {
  const size = shape => shape.reduce((a, b) => a * b);
  const shard = Float32Array.from(Object.values(SHAPES).flatMap(shape => {
    const bound = shape.length > 1 ? Math.sqrt(6 / (shape[0] + shape[1])) : 0;
    return Array.from({length: size(shape)}, () => bound * (2 * Math.random() - 1));
  }));
  const converter = {type: 'MelodyConverter', args: {minPitch: 21, maxPitch: 108, numSteps: 32}};
  const weights = Object.entries(SHAPES).map(([name, shape]) => ({name, shape, dtype: 'float32'}));
  return {
    '/config.json': JSON.stringify({type: 'MusicVAE', dataConverter: converter}),
    '/weights_manifest.json': JSON.stringify([{paths: ['group1-shard1of1'], weights}]),
    '/group1-shard1of1': Buffer.from(shard.buffer),
  };
}

async function main() {
  const files = checkpoint();
  const server = http.createServer((request, response) => response.end(files[request.url]));
  await new Promise(ready => server.listen(0, '127.0.0.1', ready));
  delete globalThis.fetch; // Emscripten would ask it for the path of the wasm binary
  console.log = console.warn = () => {}; // magenta.js and TensorFlow.js print banners

  const tf = require('@tensorflow/tfjs');
  if (options.backend === 'wasm') require('@tensorflow/tfjs-backend-wasm');
  await tf.setBackend(options.backend);
  await tf.ready();
  const {MusicVAE} = require('@magenta/music/node/music_vae');
  const model = new MusicVAE(`http://127.0.0.1:${server.address().port}`);
  await model.initialize();
  server.close();

  const sample = async () => {
    const tokens = await model.sampleTensors(Number(options.batch), 1.0);
    await tokens.data();
    tokens.dispose();
  };
  const version = `@magenta/music ${require('@magenta/music/package.json').version}, tfjs ${tf.version.tfjs}`;
  for await (const line of readline.createInterface({input: process.stdin})) {
    const times = [];
    const begin = performance.now();
    const processor = process.cpuUsage();
    while (times.length === 0 || performance.now() - begin < 1000 * Number(options.seconds)) {
      const start = performance.now();
      await sample();
      times.push((performance.now() - start) / 1000);
    }
    const used = process.cpuUsage(processor);
    process.stdout.write(JSON.stringify({
      seconds: (performance.now() - begin) / 1000,
      processor: (used.user + used.system) / 1e6,
      times: times.length > 1 ? times.slice(1) : times,
      memory_mb: process.resourceUsage().maxRSS / 1000,
      version,
    }) + '\n');
  }
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
