/** Temporary. */
export const vdevNumber = (vdev: string): number => (202 << 8) | ((vdev.charCodeAt(3) - 97) << 4) | Number(vdev.slice(4) || 0);
