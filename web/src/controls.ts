import { part } from "./compare";

/** Milliseconds between two looks at where a clip is. */
const LOOK = 200;

/**
 * The buttons under a clip: play, seek and mute.
 *
 * @param root holds `.play`, `.seek` and `.mute`.
 * @param video the clip that they are for now, if there is one.
 */
export function controlClips(root: ParentNode, video: () => HTMLVideoElement | undefined): void {
  const play = part<HTMLButtonElement>(root, ".play");
  const mute = part<HTMLButtonElement>(root, ".mute");
  const seek = part<HTMLInputElement>(root, ".seek");
  play.addEventListener("click", () => {
    const one = video();
    if (one?.paused) void one.play();
    else one?.pause();
  });
  mute.addEventListener("click", () => {
    const one = video();
    if (one) one.muted = !one.muted;
    mute.setAttribute("aria-pressed", String(one?.muted ?? false));
  });
  seek.addEventListener("input", () => {
    const one = video();
    if (one?.duration) one.currentTime = (Number(seek.value) / 1000) * one.duration;
  });
  const follow = () => {
    const one = video();
    if (one) {
      play.textContent = one.paused ? "Play" : "Pause";
      mute.setAttribute("aria-pressed", String(one.muted));
      if (document.activeElement !== seek || !one.paused)
        seek.value = String((one.currentTime / (one.duration || 1)) * 1000);
    }
    setTimeout(follow, LOOK);
  };
  follow();
}
