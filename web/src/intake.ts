/** Take in files that the visitor chooses, drops on the page or pastes. */
export function takeFiles(chooser: HTMLInputElement, take: (files: File[]) => void): void {
  const give = (files: FileList | undefined | null) => {
    if (files?.length) take([...files]);
  };
  chooser.addEventListener("change", () => {
    give(chooser.files);
    chooser.value = "";
  });
  for (const button of document.querySelectorAll(".choose"))
    button.addEventListener("click", () => chooser.click());
  document.addEventListener("paste", (event) => give(event.clipboardData?.files));
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    give(event.dataTransfer?.files);
  });
}

/** Let a button paste, where there may be no key for it; without that, the button stays away. */
export function offerPaste(button: HTMLElement, take: (files: File[]) => void): void {
  // Only pages of this machine, and of https, may read the clipboard.
  if (typeof navigator.clipboard?.read !== "function") return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const files: File[] = [];
    try {
      for (const one of await navigator.clipboard.read()) {
        const kind = one.types.find((type) => type.startsWith("image/"));
        if (!kind) continue;
        const suffix = kind.slice(6).replace(/\W.*/, "");
        files.push(new File([await one.getType(kind)], `pasted.${suffix}`, { type: kind }));
      }
    } catch {
      // The visitor did not allow it.
    }
    if (files.length) take(files);
    else flash(button, "No picture to paste");
  });
}

function flash(button: HTMLElement, text: string): void {
  const before = button.textContent;
  button.textContent = text;
  setTimeout(() => (button.textContent = before), 2000);
}
