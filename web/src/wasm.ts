import type { Engine, Screen } from "./engine";
import { loadOnnx, type Model } from "./models";
import { surface } from "./picture";
import type { Answer, Open, Pixels } from "./worker";

/** Threads beyond this gain nothing for so small a network. */
const MOST_THREADS = 8;

interface Waiting {
  resolve(done: Pixels | null): void;
  reject(error: Error): void;
}

/** The network on the processor: ONNX Runtime in WebAssembly, in a worker. */
export class WasmEngine implements Engine {
  // 512 pixels of picture; what the network sees beyond them comes on top.
  readonly longest: number;
  readonly label: string;
  private readonly worker = new Worker("worker.js", { type: "module" });
  private readonly waiting: Waiting[] = [];

  private constructor(
    readonly model: Model,
    threads: number,
  ) {
    this.longest = 512 + 2 * model.reach;
    this.label = `processor, ${threads} ${threads === 1 ? "thread" : "threads"}`;
    this.worker.onmessage = ({ data }: MessageEvent<Answer>) => {
      const next = this.waiting.shift();
      if ("failed" in data) next?.reject(new Error(data.failed));
      else next?.resolve(data.done);
    };
    this.worker.onerror = () => this.fail("The browser cannot run WebAssembly here.");
  }

  static async open(model: Model): Promise<WasmEngine> {
    // Only an isolated page may share memory between threads.
    const threads = self.crossOriginIsolated
      ? Math.min(navigator.hardwareConcurrency || 1, MOST_THREADS)
      : 1;
    const engine = new WasmEngine(model, threads);
    try {
      await engine.ask({ onnx: await loadOnnx(model), threads });
    } catch (error) {
      engine.close();
      throw error;
    }
    return engine;
  }

  async enlarge(picture: ImageData): Promise<ImageData> {
    const { width, height } = picture;
    const large = await this.ask({ pixels: picture.data as Pixels["pixels"], width, height });
    if (!large) throw new Error("The worker gave no picture.");
    return new ImageData(large.pixels, large.width, large.height);
  }

  screen(canvas: HTMLCanvasElement, width: number, height: number): Screen {
    canvas.width = width * this.model.scale;
    canvas.height = height * this.model.scale;
    const target = surface(canvas);
    const frame = surface(new OffscreenCanvas(width, height), true);
    let open = true;
    return {
      show: async (video) => {
        frame.drawImage(video, 0, 0, width, height);
        const large = await this.enlarge(frame.getImageData(0, 0, width, height));
        if (open) target.putImageData(large, 0, 0);
      },
      close: () => {
        open = false;
      },
    };
  }

  close(): void {
    this.worker.terminate();
    this.fail("The work was stopped.");
  }

  private ask(message: Open | Pixels): Promise<Pixels | null> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject });
      this.worker.postMessage(message);
    });
  }

  private fail(why: string): void {
    for (const one of this.waiting.splice(0)) one.reject(new Error(why));
  }
}
