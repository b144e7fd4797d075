// Runs a network with ONNX Runtime, off the thread of the page.
import * as ort from "onnxruntime-web/wasm";

/** Start: a model. */
export interface Open {
  readonly onnx: Uint8Array;
  readonly threads: number;
}

/** A picture as RGBA, or enlarged. */
export interface Pixels {
  readonly pixels: Uint8ClampedArray<ArrayBuffer>;
  readonly width: number;
  readonly height: number;
}

/** What comes back for each message, in order. */
export type Answer = { readonly done: Pixels | null } | { readonly failed: string };

let session: ort.InferenceSession | undefined;
let last: Promise<unknown> = Promise.resolve();

async function open({ onnx, threads }: Open): Promise<null> {
  const base = new URL(".", self.location.href);
  const packed = await fetch(new URL("runtime.bin", base));
  if (!packed.ok || !packed.body) throw new Error("runtime.bin is missing. Write the page again.");
  const unpacked = new Response(packed.body.pipeThrough(new DecompressionStream("gzip")));
  ort.env.wasm.wasmBinary = await unpacked.arrayBuffer();
  ort.env.wasm.wasmPaths = { mjs: new URL("runtime.mjs", base).href };
  ort.env.wasm.numThreads = threads;
  session = await ort.InferenceSession.create(onnx, { executionProviders: ["wasm"] });
  return null;
}

async function run({ pixels, width, height }: Pixels): Promise<Pixels> {
  if (!session) throw new Error("no model is open");
  const size = width * height;
  const planes = new Float32Array(3 * size);
  for (let at = 0, from = 0; at < size; at++, from += 4) {
    planes[at] = pixels[from]! / 255;
    planes[size + at] = pixels[from + 1]! / 255;
    planes[2 * size + at] = pixels[from + 2]! / 255;
  }
  const input = new ort.Tensor("float32", planes, [1, 3, height, width]);
  const output = (await session.run({ input }))["output"]!;
  const made = output.data as Float32Array;
  const [, , rows, columns] = output.dims as [number, number, number, number];
  const large = rows * columns;
  const found = new Uint8ClampedArray(4 * large);
  // The array rounds and clamps.
  for (let at = 0, to = 0; at < large; at++, to += 4) {
    found[to] = made[at]! * 255;
    found[to + 1] = made[large + at]! * 255;
    found[to + 2] = made[2 * large + at]! * 255;
    found[to + 3] = 255;
  }
  output.dispose();
  return { pixels: found, width: columns, height: rows };
}

self.onmessage = ({ data }: MessageEvent<Open | Pixels>) => {
  last = last.then(async () => {
    try {
      const done = "onnx" in data ? await open(data) : await run(data);
      const answer: Answer = { done };
      self.postMessage(answer, done ? { transfer: [done.pixels.buffer] } : {});
    } catch (error) {
      const answer: Answer = { failed: error instanceof Error ? error.message : String(error) };
      self.postMessage(answer);
    }
  });
};
