/** HYPERVISOR_grant_table_op of a front end - public/grant_table.h. Back ends are domain 0's, which uses grant_table.ts itself. */
import { EINVAL, ENOSYS, EPERM } from "../abi/errno.ts";
import { GNTST, GNTTABOP, GnttabGetVersion, GnttabQuerySize, GnttabSetVersion, GnttabSetupTable } from "../abi/grant_table.ts";
import { type Args, type Call, copyFieldOut, copyIn, copyOut, isSelf } from "./call.ts";
import { grantFrameGfn, growGrantTable, maxGrantFrames, nrGrantFrames, setVersion } from "./grant_table.ts";
import { DOMAIN } from "./objects.ts";

type Op = (c: Call, uop: bigint, count: number) => number;
const NO_GFN = 0xffffffff;
/** Whom a query may be about. @returns GNTST_* */
const about = (c: Call, domid: number): number => (isSelf(c, domid) ? GNTST.okay : c.hv.domain(domid) ? GNTST.permission_denied : GNTST.bad_domain);

const OPS: Readonly<Record<number, Op>> = {
  [GNTTABOP.set_version]: (c, uop) => {
    const s = copyIn(c, uop, GnttabSetVersion.sizeof), rc = setVersion(GnttabSetVersion.version.get(s, 0));
    GnttabSetVersion.version.set(s, 0, c.hv.get(DOMAIN.gntVersion, c.d.at));
    copyOut(c, uop, s);
    return rc;
  },
  [GNTTABOP.get_version]: (c, uop) => {
    const s = copyIn(c, uop, GnttabGetVersion.sizeof);
    if (!isSelf(c, GnttabGetVersion.dom.get(s, 0))) return -EPERM;
    GnttabGetVersion.version.set(s, 0, c.hv.get(DOMAIN.gntVersion, c.d.at));
    copyFieldOut(c, uop, s, GnttabGetVersion.version);
    return 0;
  },
  [GNTTABOP.query_size]: (c, uop, count) => {
    if (count !== 1) return -EINVAL;
    const s = copyIn(c, uop, GnttabQuerySize.sizeof), Q = GnttabQuerySize, status = about(c, Q.dom.get(s, 0));
    Q.status.set(s, 0, status & 0xffff);
    if (status === GNTST.okay) {
      Q.nr_frames.set(s, 0, nrGrantFrames(c.d));
      Q.max_nr_frames.set(s, 0, maxGrantFrames(c.d));
    }
    copyOut(c, uop, s);
    return 0;
  },
  [GNTTABOP.setup_table]: (c, uop, count) => {
    if (count !== 1) return -EINVAL;
    const s = copyIn(c, uop, GnttabSetupTable.sizeof), S = GnttabSetupTable, nr = S.nr_frames.get(s, 0);
    let status: number = nr > maxGrantFrames(c.d) ? GNTST.general_error : about(c, S.dom.get(s, 0));
    if (status === GNTST.okay && nr > nrGrantFrames(c.d)) status = growGrantTable(c.d, nr);
    if (status === GNTST.okay) {
      const list = new DataView(new ArrayBuffer(nr * 8));
      for (let i = 0; i < nr; i++) {
        const gfn = grantFrameGfn(c.d, i);
        list.setBigUint64(i * 8, gfn === NO_GFN ? -1n : BigInt(gfn), true);
      }
      copyOut(c, S.frame_list.get(s, 0), list);
    }
    S.status.set(s, 0, status & 0xffff);
    copyFieldOut(c, uop, s, S.status);
    return 0;
  },
};
/** HYPERVISOR_grant_table_op(cmd, uop, count). */
export function doGrantTableOp(c: Call, a: Args): number {
  return OPS[a.n(0)]?.(c, a.p(1), a.n(2)) ?? -ENOSYS;
}
