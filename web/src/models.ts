/** A model as `models/models.json` lists it. */
export interface Model {
  readonly scale: number;
  /** Distance in pixels beyond which the input cannot change the output. */
  readonly reach: number;
  readonly onnx: string;
  readonly wgsl: string;
}

/** One compute pass of a model for WebGPU. */
export interface Stage {
  readonly code: string;
  readonly first: number;
  readonly count: number;
  readonly reads: readonly (string | number)[];
  readonly writes: string | number;
  readonly texels: number;
}

/** A model for WebGPU. */
export interface Kernels {
  readonly format: string;
  readonly scale: number;
  readonly workgroup: number;
  readonly stages: readonly Stage[];
  readonly weights: string;
}

export async function loadModels(): Promise<readonly Model[]> {
  return ((await fetched("models/models.json").then((answer) => answer.json())) as {
    models: Model[];
  }).models;
}

export async function loadKernels(model: Model): Promise<Kernels> {
  const kernels = (await (await fetched(`models/${model.wgsl}`)).json()) as Kernels;
  if (kernels.format !== "paragonsr2-wgsl-1")
    throw new Error("The page and its models are of different versions. Reload the page.");
  return kernels;
}

export async function loadOnnx(model: Model): Promise<Uint8Array> {
  return new Uint8Array(await (await fetched(`models/${model.onnx}`)).arrayBuffer());
}

async function fetched(path: string): Promise<Response> {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is missing. Write the page again: paragonsr2 web`);
  return answer;
}
