/** One stretch of a side: what is read, and which part of it is kept. */
export interface Stretch {
  readonly from: number;
  readonly size: number;
  readonly keepFrom: number;
  readonly keepSize: number;
}

/**
 * Cut a side into stretches that overlap by as much as the network sees.
 *
 * What is kept of them is what the whole side gives: a stretch ends where the side ends, or `reach`
 * pixels beyond what is kept of it.
 */
export function stretches(length: number, longest: number, reach: number): Stretch[] {
  if (length <= longest) return [{ from: 0, size: length, keepFrom: 0, keepSize: length }];
  const step = longest - 2 * reach;
  if (step < 1) throw new Error(`a stretch of ${longest} has no room beside a reach of ${reach}`);
  const found: Stretch[] = [];
  for (let keepFrom = 0; keepFrom < length; keepFrom += step) {
    const keepSize = Math.min(step, length - keepFrom);
    const from = Math.max(keepFrom - reach, 0);
    const end = Math.min(keepFrom + keepSize + reach, length);
    found.push({ from, size: end - from, keepFrom, keepSize });
  }
  return found;
}
