// One device for all pictures, and each shader compiled once: on a CPU that takes seconds.
let opened;
const pipelines = new Map();
const errors = [];

async function openDevice() {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter.requestDevice();
  device.onuncapturederror = (event) => errors.push(event.error.message);
  return device;
}

function pipelineOf(device, code) {
  if (!pipelines.has(code)) {
    const module = device.createShaderModule({ code });
    const compute = { module, entryPoint: "main" };
    pipelines.set(code, device.createComputePipeline({ layout: "auto", compute }));
  }
  return pipelines.get(code);
}

// Runs a document of shaders/wgsl.py on a picture.
async function enlarge(document, pixels, width, height) {
  opened ??= openDevice();
  const device = await opened;
  const packed = Uint8Array.from(atob(document.weights), (c) => c.charCodeAt(0));
  const weights = new Float32Array(packed.buffer);
  const { STORAGE, UNIFORM, COPY_DST, COPY_SRC, MAP_READ } = GPUBufferUsage;
  const upload = (content, usage) => {
    const buffer = device.createBuffer({ size: content.byteLength, usage: usage | COPY_DST });
    device.queue.writeBuffer(buffer, 0, content);
    return buffer;
  };
  const size = upload(new Uint32Array([width, height]), UNIFORM);
  const pixel = width * height;
  const buffers = { input: upload(new Float32Array(pixels), STORAGE) };
  const result = pixel * document.scale ** 2 * 16;
  for (const stage of document.stages) {
    const bytes = stage.writes === "output" ? result : pixel * stage.texels * 16;
    const known = buffers[stage.writes];
    if (!known || known.size < bytes)
      buffers[stage.writes] = device.createBuffer({ size: bytes, usage: STORAGE | COPY_SRC });
  }
  const encoder = device.createCommandEncoder();
  for (const stage of document.stages) {
    const pipeline = pipelineOf(device, stage.code);
    const own = upload(weights.slice(stage.first, stage.first + stage.count), STORAGE);
    const bound = [size, own, buffers[stage.writes], ...stage.reads.map((name) => buffers[name])];
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: bound.map((buffer, binding) => ({ binding, resource: { buffer } })),
    }));
    const side = document.workgroup;
    pass.dispatchWorkgroups(Math.ceil(width / side), Math.ceil(height / side));
    pass.end();
  }
  const back = device.createBuffer({ size: result, usage: MAP_READ | COPY_DST });
  encoder.copyBufferToBuffer(buffers.output, 0, back, 0, result);
  device.queue.submit([encoder.finish()]);
  await back.mapAsync(GPUMapMode.READ);
  if (errors.length) throw new Error(errors.splice(0).join("; "));
  return Array.from(new Float32Array(back.getMappedRange()));
}
