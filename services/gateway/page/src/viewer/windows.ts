/** The windows of CT, the same as those of the thumbnails (centre and width in HU). */

export type WindowName = "lung" | "bone" | "soft" | "brain";

export const WINDOWS: Record<WindowName, { centre: number; width: number }> = {
  lung: { centre: -600, width: 1500 },
  bone: { centre: 400, width: 1800 },
  soft: { centre: 40, width: 400 },
  brain: { centre: 40, width: 80 },
};

export function range(name: WindowName): { low: number; high: number } {
  const { centre, width } = WINDOWS[name];
  return { low: centre - width / 2, high: centre + width / 2 };
}
