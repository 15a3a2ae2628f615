/**
 * Which expert owns a row: the last expert that starts at the row or before. A binary search over ascending starts, of
 * which none need be 0 or different from the next. A program has one startOf, so MoeSortOrder of expert_sort/webgl.ts,
 * which searches keys and then chunks, has its two searches written out.
 */

/** WGSL: lastStart(place, end), of starts 0 to end - 1 the last that is not past the place. The page has startOf(i). */
export const LAST_START_WGSL = /* wgsl */ `
  fn lastStart(place : u32, end : u32) -> u32 {
    var low = 0u;
    var high = end;
    while (high - low > 1) {
      let middle = (low + high) / 2;
      if (startOf(middle) <= place) { low = middle; } else { high = middle; }
    }
    return low;
  }`;

/** GLSL: lastStart(place, first, end), the same for starts `first` to end - 1. The code has startOf(i) before it. */
export const LAST_START_GLSL = `
  int lastStart(int place, int first, int end) {
    int low = first;
    int high = end;
    while (high - low > 1) {
      int middle = (low + high) / 2;
      if (startOf(middle) <= place) { low = middle; } else { high = middle; }
    }
    return low;
  }`;
