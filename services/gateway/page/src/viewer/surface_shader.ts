/**
 * How surfaces are lit: by a lamp at the eye, and a little from above.
 *
 * What is clear is clearest where one looks straight at it, and closes towards its rim, as glass does: shells around each
 * other are seen without hiding what is inside. niivue's own shaders light from above only, which leaves most of a body
 * that is seen from the front in the dark.
 */
export const SURFACE_SHADER = `#version 300 es
precision highp int;
precision highp float;
uniform float opacity;
in vec4 vClr;
in vec3 vN;
out vec4 color;
void main() {
  vec3 normal = normalize(vN);
  float facing = abs(normal.z);
  float above = 0.5 + 0.5 * normal.y;
  vec3 lit = vClr.rgb * (0.22 + 0.16 * above + 0.66 * facing) + 0.10 * pow(facing, 24.0);
  float rim = (1.0 - facing) * (1.0 - facing);
  float alpha = opacity >= 1.0 ? 1.0 : min(1.0, opacity * (0.45 + 0.75 * opacity + 2.0 * rim * (1.0 - opacity)));
  color = vec4(lit, alpha);
}`;
