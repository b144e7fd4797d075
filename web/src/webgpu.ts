import type { Engine, Screen } from "./engine";
import { loadKernels, type Kernels, type Model } from "./models";

const UNPACK = `
@group(0) @binding(0) var<uniform> size: vec2u;
@group(0) @binding(1) var picture: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> written: array<vec4f>;
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= size.x || id.y >= size.y) { return; }
  written[id.y * size.x + id.x] = vec4f(textureLoad(picture, id.xy, 0).rgb, 1.0);
}`;

const pack = (scale: number) => `
@group(0) @binding(0) var<uniform> size: vec2u;
@group(0) @binding(1) var<storage, read> large: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> written: array<u32>;
@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= size.x * ${scale} || id.y >= size.y * ${scale}) { return; }
  let at = id.y * size.x * ${scale} + id.x;
  written[at] = pack4x8unorm(large[at]);
}`;

const show = (scale: number) => `
@group(0) @binding(0) var<uniform> size: vec2u;
@group(0) @binding(1) var<storage, read> large: array<vec4f>;
@vertex fn corner(@builtin(vertex_index) index: u32) -> @builtin(position) vec4f {
  return vec4f(select(-1.0, 3.0, index == 1), select(-1.0, 3.0, index == 2), 0.0, 1.0);
}
@fragment fn colour(@builtin(position) place: vec4f) -> @location(0) vec4f {
  let at = u32(place.y) * size.x * ${scale} + u32(place.x);
  return vec4f(clamp(large[at].rgb, vec3f(), vec3f(1.0)), 1.0);
}`;

const BYTES_OF_TEXEL = 16;

/** The network on the graphics card: the project's kernels in WebGPU. */
export class WebGpuEngine implements Engine {
  readonly label = "graphics card";
  readonly longest: number;
  private chain: Chain | undefined;
  private readonly stages: readonly GPUComputePipeline[];
  private readonly weights: readonly GPUBuffer[];

  private constructor(
    readonly model: Model,
    readonly device: GPUDevice,
    readonly kernels: Kernels,
    readonly helpers: { unpack: GPUComputePipeline; pack: GPUComputePipeline },
    stages: GPUComputePipeline[],
  ) {
    this.longest = 512 + 2 * model.reach;
    this.stages = stages;
    const packed = Uint8Array.from(atob(kernels.weights), (letter) => letter.charCodeAt(0));
    const values = new Float32Array(packed.buffer);
    this.weights = kernels.stages.map(({ first, count }) => {
      const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST;
      const buffer = device.createBuffer({ size: count * 4, usage });
      device.queue.writeBuffer(buffer, 0, values, first, count);
      return buffer;
    });
  }

  /** Open the model on the graphics card; undefined where the browser cannot. */
  static async open(model: Model): Promise<WebGpuEngine | undefined> {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) return undefined;
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    const requiredLimits = { maxBufferSize, maxStorageBufferBindingSize };
    const device = await adapter.requestDevice({ requiredLimits });
    const kernels = await loadKernels(model);
    // Blocks that are built alike share their code, which takes long to compile.
    const made = new Map<string, Promise<GPUComputePipeline>>();
    const pipeline = (code: string) => {
      const compute = { module: device.createShaderModule({ code }), entryPoint: "main" };
      const found =
        made.get(code) ?? device.createComputePipelineAsync({ layout: "auto", compute });
      made.set(code, found);
      return found;
    };
    const [unpack, packed, ...stages] = await Promise.all([
      pipeline(UNPACK),
      pipeline(pack(model.scale)),
      ...kernels.stages.map(({ code }) => pipeline(code)),
    ]);
    if (!unpack || !packed) return undefined;
    return new WebGpuEngine(model, device, kernels, { unpack, pack: packed }, stages);
  }

  async enlarge(picture: ImageData): Promise<ImageData> {
    const { width, height } = picture;
    const { device } = this;
    device.pushErrorScope("out-of-memory");
    device.pushErrorScope("validation");
    const chain = this.chainFor(width, height);
    device.queue.writeTexture(
      { texture: chain.picture },
      picture.data as Uint8ClampedArray<ArrayBuffer>,
      { bytesPerRow: width * 4 },
      [width, height],
    );
    const encoder = device.createCommandEncoder();
    chain.encode(encoder);
    const back = chain.encodeReading(encoder);
    device.queue.submit([encoder.finish()]);
    const errors = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
    const error = errors.find((one) => one);
    if (error) throw new Error(`The graphics card refused the work: ${error.message}`);
    await back.mapAsync(GPUMapMode.READ);
    const pixels = new Uint8ClampedArray(back.getMappedRange().slice(0));
    back.unmap();
    const { scale } = this.model;
    return new ImageData(pixels, width * scale, height * scale);
  }

  screen(canvas: HTMLCanvasElement, width: number, height: number): Screen {
    const { device, model } = this;
    canvas.width = width * model.scale;
    canvas.height = height * model.scale;
    const context = canvas.getContext("webgpu");
    if (!context) throw new Error("The browser cannot show what the graphics card computes.");
    const format = navigator.gpu.getPreferredCanvasFormat();
    context.configure({ device, format, alphaMode: "opaque" });
    const module = device.createShaderModule({ code: show(model.scale) });
    const pipeline = device.createRenderPipeline({
      layout: "auto",
      vertex: { module, entryPoint: "corner" },
      fragment: { module, entryPoint: "colour", targets: [{ format }] },
    });
    const chain = this.chainFor(width, height);
    const group = bind(device, pipeline, [chain.size, chain.large]);
    return {
      show: async (video) => {
        const texture = { texture: chain.picture };
        device.queue.copyExternalImageToTexture({ source: video }, texture, [width, height]);
        const encoder = device.createCommandEncoder();
        chain.encode(encoder);
        const pass = encoder.beginRenderPass({
          colorAttachments: [
            { view: context.getCurrentTexture().createView(), loadOp: "clear", storeOp: "store" },
          ],
        });
        pass.setPipeline(pipeline);
        pass.setBindGroup(0, group);
        pass.draw(3);
        pass.end();
        device.queue.submit([encoder.finish()]);
        await device.queue.onSubmittedWorkDone();
      },
      close: () => context.unconfigure(),
    };
  }

  close(): void {
    this.device.destroy();
  }

  private chainFor(width: number, height: number): Chain {
    if (this.chain?.width !== width || this.chain.height !== height) {
      this.chain?.close();
      this.chain = new Chain(this, this.stages, this.weights, width, height);
    }
    return this.chain;
  }
}

/** The buffers and passes for pictures of one size. */
class Chain {
  readonly picture: GPUTexture;
  readonly size: GPUBuffer;
  readonly large: GPUBuffer;
  private readonly packed: GPUBuffer;
  private readonly back: GPUBuffer;
  private readonly buffers = new Map<string | number, GPUBuffer>();
  private readonly passes: { pipeline: GPUComputePipeline; group: GPUBindGroup }[] = [];

  constructor(
    private readonly engine: WebGpuEngine,
    pipelines: readonly GPUComputePipeline[],
    weights: readonly GPUBuffer[],
    readonly width: number,
    readonly height: number,
  ) {
    const { device, kernels, helpers, model } = engine;
    const { STORAGE, UNIFORM, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
    const large = width * height * model.scale ** 2;
    const most = device.limits.maxStorageBufferBindingSize;
    if (large * BYTES_OF_TEXEL > most)
      throw new Error("This is too large for the memory of the graphics card. Choose the processor.");
    this.picture = device.createTexture({
      size: [width, height],
      format: "rgba8unorm",
      usage:
        GPUTextureUsage.TEXTURE_BINDING |
        GPUTextureUsage.COPY_DST |
        GPUTextureUsage.RENDER_ATTACHMENT,
    });
    this.size = device.createBuffer({ size: 8, usage: UNIFORM | COPY_DST });
    device.queue.writeBuffer(this.size, 0, new Uint32Array([width, height]));
    this.packed = device.createBuffer({ size: large * 4, usage: STORAGE | COPY_SRC });
    this.back = device.createBuffer({ size: large * 4, usage: MAP_READ | COPY_DST });
    const sizes = new Map<string | number, number>([["input", width * height]]);
    for (const { writes, texels } of kernels.stages) {
      const size = writes === "output" ? large : width * height * texels;
      sizes.set(writes, Math.max(sizes.get(writes) ?? 0, size));
    }
    for (const [name, size] of sizes)
      this.buffers.set(name, device.createBuffer({ size: size * BYTES_OF_TEXEL, usage: STORAGE }));
    this.large = this.buffer("output");
    this.add(helpers.unpack, [this.size, this.picture.createView(), this.buffer("input")]);
    kernels.stages.forEach((stage, number) => {
      const reads = stage.reads.map((name) => this.buffer(name));
      const own = weights[number]!;
      this.add(pipelines[number]!, [this.size, own, this.buffer(stage.writes), ...reads]);
    });
  }

  /** Compute `large` from `picture`. */
  encode(encoder: GPUCommandEncoder): void {
    const side = this.engine.kernels.workgroup;
    for (const { pipeline, group } of this.passes) {
      const pass = encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(Math.ceil(this.width / side), Math.ceil(this.height / side));
      pass.end();
    }
  }

  /** Bring `large` back as RGBA of 8 bits. */
  encodeReading(encoder: GPUCommandEncoder): GPUBuffer {
    const { device, helpers, model } = this.engine;
    const pass = encoder.beginComputePass();
    pass.setPipeline(helpers.pack);
    pass.setBindGroup(0, bind(device, helpers.pack, [this.size, this.large, this.packed]));
    const [across, down] = [this.width * model.scale, this.height * model.scale];
    pass.dispatchWorkgroups(Math.ceil(across / 8), Math.ceil(down / 8));
    pass.end();
    encoder.copyBufferToBuffer(this.packed, 0, this.back, 0, this.back.size);
    return this.back;
  }

  close(): void {
    this.picture.destroy();
    for (const one of [this.size, this.packed, this.back, ...this.buffers.values()]) one.destroy();
  }

  private add(pipeline: GPUComputePipeline, bound: (GPUBuffer | GPUTextureView)[]): void {
    this.passes.push({ pipeline, group: bind(this.engine.device, pipeline, bound) });
  }

  private buffer(name: string | number): GPUBuffer {
    const found = this.buffers.get(name);
    if (!found) throw new Error(`nothing makes the map ${name}`);
    return found;
  }
}

function bind(
  device: GPUDevice,
  pipeline: GPUPipelineBase,
  bound: readonly (GPUBuffer | GPUTextureView)[],
): GPUBindGroup {
  return device.createBindGroup({
    layout: pipeline.getBindGroupLayout(0),
    entries: bound.map((one, binding) => ({
      binding,
      resource: one instanceof GPUBuffer ? { buffer: one } : one,
    })),
  });
}
