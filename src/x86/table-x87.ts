/** x87 opcodes: the ModRM byte picks the operation, so it is part of the form. SDM Vol. 2D A.5. */
import { row } from "./rows.ts";
import { fwait, x87Memory, x87Register } from "./semantics-x87.ts";

for (let byte = 0; byte < 8; byte++) {
  row(0xd8 + byte, "b", "x87", x87Register(byte), { mod: "r", unit: "x87", known: true });
  row(0xd8 + byte, "Mv", "x87", x87Memory(byte), { mod: "m", unit: "x87", known: true });
}
row(0x9b, "b", "fwait", fwait);
