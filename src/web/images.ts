/** The images that lie beside the page. */

/** An entry of images/list.json. Paths are taken from the folder `images/`. */
export type ImageEntry = { readonly name: string; readonly title: string; readonly kernel: string; readonly ramdisk: string; readonly extra: string; readonly memoryMiB: number };
