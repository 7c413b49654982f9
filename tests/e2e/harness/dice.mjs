// Random numbers that a seed repeats, in whichever process.

/** mulberry32. */
export function dice(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    seed,
    /** In [0, 1). */
    next,
    /** An integer below `end`. */
    below: (end) => Math.floor(next() * end),
    /** One of `items`. */
    pick: (items) => items[Math.floor(next() * items.length)],
  };
}
