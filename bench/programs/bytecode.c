/* A stack machine's interpreter, one dense switch, which counts the steps of Collatz sequences. */
#include "program.h"

enum { PUSH, LOAD, STORE, ADD, MUL, HALVE, ODD, LESS, JUMP, JUMP_ZERO, DUP, END };

/* for (n = 1; n < limit; n++) for (x = n; x != 1; steps++) x = x odd ? 3x + 1 : x / 2; registers: 0 n, 1 x, 2 steps, 3 limit */
static const u8 code[] = {
  PUSH, 1, STORE, 0,
  /* 4 */ LOAD, 0, LOAD, 3, LESS, JUMP_ZERO, 58,
  /* 11 */ LOAD, 0, STORE, 1,
  /* 15 */ PUSH, 1, LOAD, 1, LESS, JUMP_ZERO, 49,
  /* 22 */ LOAD, 1, DUP, ODD, JUMP_ZERO, 36,
  /* 28 */ PUSH, 3, MUL, PUSH, 1, ADD, JUMP, 37,
  /* 36 */ HALVE,
  /* 37 */ STORE, 1, LOAD, 2, PUSH, 1, ADD, STORE, 2, JUMP, 15,
  /* 48 */ END,
  /* 49 */ LOAD, 0, PUSH, 1, ADD, STORE, 0, JUMP, 4,
  /* 58 */ END,
};

NOINLINE static u64 interpret(const u8 *program, u64 limit) {
  u64 stack[8], registers[4] = { 0, 0, 0, limit }, *top = stack;
  for (const u8 *pc = program;;) {
    switch (*pc++) {
      case PUSH: *top++ = *pc++; break;
      case LOAD: *top++ = registers[*pc++ & 3]; break;
      case STORE: registers[*pc++ & 3] = *--top; break;
      case ADD: top--; top[-1] += top[0]; break;
      case MUL: top--; top[-1] *= top[0]; break;
      case HALVE: top[-1] >>= 1; break;
      case ODD: top[-1] &= 1; break;
      case LESS: top--; top[-1] = top[-1] < top[0]; break;
      case JUMP: pc = program + *pc; break;
      case JUMP_ZERO: pc = *--top ? pc + 1 : program + *pc; break;
      case DUP: top[0] = top[-1]; top++; break;
      default: return registers[2] << 32 | registers[0];
    }
  }
}

u64 run(void) {
  volatile u64 limit = 8000;
  return interpret(code, limit);
}
