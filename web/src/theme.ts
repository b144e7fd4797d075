/** Light or dark: as the system wishes, until the visitor presses the button. */
export function offerTheme(button: HTMLElement): void {
  recallTheme();
  button.addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset["theme"] ?? (dark ? "dark" : "light");
    setTheme(now === "dark" ? "light" : "dark");
  });
}

function setTheme(theme: string): void {
  document.documentElement.dataset["theme"] = theme;
  try {
    localStorage.setItem("theme", theme);
  } catch {
    // The browser keeps nothing; the choice lasts as long as the page.
  }
}

function recallTheme(): void {
  try {
    const kept = localStorage.getItem("theme");
    if (kept) document.documentElement.dataset["theme"] = kept;
  } catch {
    // As above.
  }
}
