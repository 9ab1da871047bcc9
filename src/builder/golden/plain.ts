/** The plain bytes behind the golden archives, made here so that only the packed ones are kept. */

/** xorshift32: the same numbers on every machine. */
function* numbers(seed: number): Generator<number, never> {
  for (let x = seed; ;) { x ^= x << 13; x ^= x >>> 17; x ^= x << 5; yield x >>> 0; }
}

/** Words, x86 calls to a few places, zeros, noise, and repeats from near and far. */
function mixture(size: number, seed: number): Uint8Array<ArrayBuffer> {
  const b = new Uint8Array(size), random = numbers(seed), next = (n: number): number => random.next().value % n;
  const words = Array.from({ length: 60 }, () => Uint8Array.from({ length: 2 + next(8) }, () => 97 + next(26)));
  for (let at = 0; at < size;) {
    const push = (...bytes: number[]): void => { for (const x of bytes) if (at < size) b[at++] = x; };
    switch (next(8)) {
      case 0: for (let n = next(40); n > 0; n--) push(0); break;
      case 1: for (let n = next(12); n > 0; n--) push(next(256)); break;
      case 2: {  // call rel32: only the x86 filter makes these alike
        for (let n = next(6); n > 0; n--) {
          const target = 0x1000 * (1 + next(4)) - (at + 5);
          push(0xe8 + next(2), target & 255, target >> 8 & 255, target >> 16 & 255, target >> 24 & 255, 0x90);
        }
        break;
      }
      case 3: if (at > 16) { const from = next(at), n = Math.min(3 + next(120), size - at); for (let i = 0; i < n; i++) push(b[from + i] as number); } break;
      default: for (let n = 1 + next(10); n > 0; n--) push(...words[Math.min(next(60), next(60))] as Uint8Array, 32);
    }
  }
  return b;
}

/** One block of any format. */
export const small = (): Uint8Array<ArrayBuffer> => mixture(2500, 1);
/** More than one of zstd's blocks. */
export const large = (): Uint8Array<ArrayBuffer> => mixture(150_000, 2);
