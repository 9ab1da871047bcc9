/**
 * Arrivals at a block before it pays to translate it: measured on a boot, on fork + exec, Python's start and a compilation, see docs/translator.md. Code that runs less often than V8 takes to
 * optimise it is better off in the interpreter: V8's first tier is slower than that where code is in no cache. Apart from the engine, for who only tells of it.
 */
export const TRANSLATE_AFTER = 10_000;
