// The WebGL half: a ground grid, capsules (bones, joints, the camera), ribbons (paths), discs (sigma), skinned meshes.

const HEAD = "#version 300 es\nprecision highp float;\n";
const LIT = `
uniform vec3 eye; uniform float alpha, glow, light;
vec3 lit(vec3 colour, vec3 normal, vec3 place) {
  vec3 n = normalize(normal), towards = normalize(eye - place);
  float lamp = 0.5 + 0.5 * dot(n, normalize(vec3(0.35, -0.45, 0.85)));
  float rim = pow(1.0 - max(dot(n, towards), 0.0), 2.5);
  return light * mix(colour * (0.5 + 0.56 * lamp * lamp) * (1.0 - 0.35 * rim), colour, glow);
}`;
const FLATTEN = `
uniform mat4 camera; uniform float floor_height, flatten;
vec4 seen(vec3 place) { place.z = mix(place.z, floor_height, flatten); return camera * vec4(place, 1.0); }`;

const PROGRAMS = {
  capsule: [`
in vec4 shape; in vec3 start, end; in vec2 radii; in vec3 startColour, endColour;
out vec3 normal, place, colour;${FLATTEN}
void main() {
  vec3 along = end - start; float size = length(along);
  vec3 w = size > 1e-6 ? along / size : vec3(0.0, 0.0, 1.0);
  vec3 u = normalize(cross(w, abs(w.z) < 0.9 ? vec3(0.0, 0.0, 1.0) : vec3(1.0, 0.0, 0.0))), v = cross(w, u);
  normal = shape.x * u + shape.y * v + shape.z * w;
  place = mix(start, end, shape.w) + mix(radii.x, radii.y, shape.w) * normal;
  colour = mix(startColour, endColour, shape.w);
  gl_Position = seen(place);
}`, `
in vec3 normal, place, colour; out vec4 paint;${LIT}
void main() { paint = vec4(lit(colour, normal, place) * alpha, alpha); }`],
  mesh: [`
in vec3 vertex, rest; in uvec4 bones; in vec4 weights;
uniform sampler2D transforms; uniform vec3 tint;
out vec3 normal, place, colour;${FLATTEN}
void main() {
  mat3 turn = mat3(0.0); vec3 shift = vec3(0.0); float total = 0.0;
  for (int k = 0; k < 4; k++) {
    float share = weights[k]; int bone = 3 * int(bones[k]); total += share;
    vec4 a = texelFetch(transforms, ivec2(bone, 0), 0), b = texelFetch(transforms, ivec2(bone + 1, 0), 0),
      c = texelFetch(transforms, ivec2(bone + 2, 0), 0);
    turn += share * transpose(mat3(a.xyz, b.xyz, c.xyz)); shift += share * vec3(a.w, b.w, c.w);
  }
  place = (turn * vertex + shift) / total; normal = turn * rest; colour = tint;
  gl_Position = seen(place);
}`, `
in vec3 normal, place, colour; out vec4 paint;${LIT}
void main() { paint = vec4(lit(colour, gl_FrontFacing ? normal : -normal, place) * alpha, alpha); }`],
  ground: [`
in vec2 corner; uniform mat4 camera; uniform vec3 centre; uniform float reach; out vec2 place;
void main() { place = centre.xy + reach * corner; gl_Position = camera * vec4(place, centre.z, 1.0); }`, `
in vec2 place; uniform vec3 centre, line, plate; uniform float reach; out vec4 paint;
float cover(float spacing, float pixels) {
  vec2 at = place / spacing, width = fwidth(at);
  vec2 near = 1.0 - smoothstep(pixels - 0.5, pixels + 0.5, abs(at - round(at)) / width);
  vec2 sparse = 1.0 - smoothstep(0.15, 0.5, width);
  return max(near.x * sparse.x, near.y * sparse.y);
}
void main() {
  float far = length(place - centre.xy) / reach, fade = exp(-6.0 * far * far) * (1.0 - smoothstep(0.7, 1.0, far));
  float lines = max(0.55 * cover(1.0, 0.8), cover(5.0, 1.0));
  float strength = fade * max(lines, 0.0);
  float under = 0.6 * fade * (1.0 - strength);
  paint = vec4(line * strength + plate * under, strength + under);
}`],
  ribbon: [`
in vec3 place; in float time; uniform mat4 camera; out float age; uniform float now;
void main() { age = now - time; gl_Position = camera * vec4(place, 1.0); }`, `
in float age; uniform vec3 tint; uniform float alpha; out vec4 paint;
void main() {
  float strength = alpha * (age < 0.0 ? 0.22 : max(0.42, 1.0 - 0.25 * age));
  paint = vec4(tint * strength, strength);
}`],
  disc: [`
in vec2 corner; in vec4 ball; in vec3 tint; uniform mat4 camera; uniform vec3 right, up; out vec2 at; out vec3 colour;
void main() { at = corner; colour = tint; gl_Position = camera * vec4(ball.xyz + ball.w * (corner.x * right + corner.y * up), 1.0); }`, `
in vec2 at; in vec3 colour; out vec4 paint;
void main() {
  float far = length(at); if (far > 1.0) discard;
  float strength = 0.17 + 0.2 * smoothstep(0.93, 0.97, far);
  paint = vec4(colour * strength, strength);
}`],
};

class Renderer {
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { antialias: true, stencil: true, alpha: false, preserveDrawingBuffer: true });
    if (!gl) throw new Error("this browser shows no WebGL 2, which the picture needs; open the page in another one");
    this.gl = gl;
    this.canvas = canvas;
    this.programs = Object.fromEntries(Object.entries(PROGRAMS).map(([name, sources]) => [name, this.compile(...sources)]));
    this.shapes = { capsule: this.capsuleArray(), disc: this.discArray(), ground: this.groundArray() };
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthFunc(gl.LEQUAL);
  }

  compile(vertexSource, fragmentSource) {
    const gl = this.gl, program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertexSource], [gl.FRAGMENT_SHADER, fragmentSource]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, HEAD + source.trim());
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = gl.getAttachedShaders(program).map((shader) => gl.getShaderInfoLog(shader));
      throw new Error(`a shader does not run here: ${logs.join(" ")}${gl.getProgramInfoLog(program)}`);
    }
    const places = {};
    for (let k = 0; k < gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS); k++) {
      const { name } = gl.getActiveUniform(program, k);
      places[name] = gl.getUniformLocation(program, name);
    }
    return { program, places };
  }

  use(name, uniforms) {
    const gl = this.gl, { program, places } = this.programs[name];
    gl.useProgram(program);
    for (const [key, value] of Object.entries(uniforms)) {
      if (!(key in places)) continue;
      if (typeof value === "number") gl.uniform1f(places[key], value);
      else if (value.length === 3) gl.uniform3fv(places[key], value);
      else gl.uniformMatrix4fv(places[key], false, value);
    }
  }

  // A vertex array of `columns` {name: size} interleaved in one float buffer; those with a divisor go by instance.
  floatColumns(program, buffer, columns, divisor = 0) {
    const gl = this.gl, width = Object.values(columns).reduce((a, b) => a + b, 0);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    let at = 0;
    for (const [name, size] of Object.entries(columns)) {
      const place = gl.getAttribLocation(this.programs[program].program, name);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, gl.FLOAT, false, 4 * width, 4 * at);
      gl.vertexAttribDivisor(place, divisor);
      at += size;
    }
  }

  bufferOf(data, target = this.gl.ARRAY_BUFFER) {
    const buffer = this.gl.createBuffer();
    this.gl.bindBuffer(target, buffer);
    this.gl.bufferData(target, data, this.gl.STATIC_DRAW);
    return buffer;
  }

  arrayOf(fill) {
    const array = this.gl.createVertexArray();
    this.gl.bindVertexArray(array);
    const rest = fill();
    this.gl.bindVertexArray(null);
    return { array, ...rest };
  }

  capsuleArray() { // two half spheres; what lies between them is stretched along the bone
    const around = 16, rings = [], corners = [];
    for (const [end, from] of [[0, -90], [1, 0]]) for (let step = 0; step <= 4; step++) rings.push([end, (from + 22.5 * step) * Math.PI / 180]);
    const corner = ([end, height], k) => {
      const angle = 2 * Math.PI * k / around;
      return [Math.cos(height) * Math.cos(angle), Math.cos(height) * Math.sin(angle), Math.sin(height), end];
    };
    for (let ring = 0; ring + 1 < rings.length; ring++) {
      for (let k = 0; k < around; k++) {
        const [a, b, c, d] = [corner(rings[ring], k), corner(rings[ring], k + 1), corner(rings[ring + 1], k), corner(rings[ring + 1], k + 1)];
        corners.push(...a, ...b, ...d, ...a, ...d, ...c);
      }
    }
    return this.arrayOf(() => {
      this.floatColumns("capsule", this.bufferOf(new Float32Array(corners)), { shape: 4 });
      const instances = this.gl.createBuffer();
      this.floatColumns("capsule", instances, { start: 3, end: 3, radii: 2, startColour: 3, endColour: 3 }, 1);
      return { instances, count: corners.length / 4, width: 14 };
    });
  }

  discArray() {
    return this.arrayOf(() => {
      this.floatColumns("disc", this.bufferOf(new Float32Array([-1, -1, 1, -1, -1, 1, 1, -1, 1, 1, -1, 1])), { corner: 2 });
      const instances = this.gl.createBuffer();
      this.floatColumns("disc", instances, { ball: 4, tint: 3 }, 1);
      return { instances, count: 6, width: 7 };
    });
  }

  groundArray() {
    return this.arrayOf(() => {
      this.floatColumns("ground", this.bufferOf(new Float32Array([-1, -1, 1, -1, -1, 1, 1, -1, 1, 1, -1, 1])), { corner: 2 });
      return { count: 6 };
    });
  }

  meshArray(mesh) {
    const gl = this.gl;
    return this.arrayOf(() => {
      this.floatColumns("mesh", this.bufferOf(mesh.vertices), { vertex: 3 });
      this.floatColumns("mesh", this.bufferOf(mesh.normals), { rest: 3 });
      const [bones, weights] = ["bones", "weights"].map((name) => gl.getAttribLocation(this.programs.mesh.program, name));
      this.bufferOf(mesh.bones);
      gl.enableVertexAttribArray(bones);
      gl.vertexAttribIPointer(bones, 4, gl.UNSIGNED_SHORT, 0, 0);
      this.bufferOf(mesh.weights);
      gl.enableVertexAttribArray(weights);
      gl.vertexAttribPointer(weights, 4, gl.UNSIGNED_BYTE, true, 0, 0);
      this.bufferOf(mesh.faces, gl.ELEMENT_ARRAY_BUFFER);
      const kind = mesh.faces instanceof Uint16Array ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT;
      return { count: mesh.faces.length, kind, transforms: this.boneTexture() };
    });
  }

  boneTexture() {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const [key, value] of [[gl.TEXTURE_MIN_FILTER, gl.NEAREST], [gl.TEXTURE_MAG_FILTER, gl.NEAREST],
      [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]]) gl.texParameteri(gl.TEXTURE_2D, key, value);
    return texture;
  }

  ribbonArray(corners) {
    return this.arrayOf(() => {
      this.floatColumns("ribbon", this.bufferOf(new Float32Array(corners)), { place: 3, time: 1 });
      return { count: corners.length / 4 };
    });
  }

  begin(background, width, height) {
    const gl = this.gl;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT | gl.STENCIL_BUFFER_BIT);
  }

  part(left, width, height) {
    this.gl.viewport(left, 0, width, height);
    this.gl.scissor(left, 0, width, height);
    this.gl.enable(this.gl.SCISSOR_TEST);
  }

  ground(view, centre, reach, line, plate) {
    const gl = this.gl;
    this.depth(false, false);
    this.use("ground", { ...view, centre, reach, line, plate });
    gl.bindVertexArray(this.shapes.ground.array);
    gl.drawArrays(gl.TRIANGLES, 0, 6);
  }

  depth(test, write) {
    const gl = this.gl;
    (test ? gl.enable : gl.disable).call(gl, gl.DEPTH_TEST);
    gl.depthMask(write);
  }

  ribbon(view, ribbon, tint, alpha, now) {
    this.depth(true, false);
    this.use("ribbon", { ...view, tint, alpha, now });
    this.gl.bindVertexArray(ribbon.array);
    this.gl.drawArrays(this.gl.TRIANGLES, 0, ribbon.count);
  }

  // Solid, see-through (nearest surface only) or as a shadow that nowhere falls twice.
  surfaces(view, draw, { alpha = 1, glow = 0, shadow = false }, floor) {
    const gl = this.gl, flatten = Number(shadow);
    const uniforms = { ...view, alpha, glow, light: 1 - flatten, floor_height: floor + 0.004, flatten };
    if (shadow) {
      this.depth(false, false);
      gl.enable(gl.STENCIL_TEST);
      gl.stencilFunc(gl.EQUAL, 0, 255);
      gl.stencilOp(gl.KEEP, gl.KEEP, gl.INCR);
    } else if (alpha < 1) {
      this.depth(true, true);
      gl.colorMask(false, false, false, false);
      draw(uniforms);
      gl.colorMask(true, true, true, true);
      this.depth(true, false);
    } else this.depth(true, true);
    draw(uniforms);
    gl.disable(gl.STENCIL_TEST);
    gl.depthMask(true);
  }

  instances(shape, rows, uniforms) {
    const gl = this.gl, { array, instances, count, width } = this.shapes[shape];
    if (!rows.length) return;
    this.use(shape, uniforms);
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, instances);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(rows), gl.DYNAMIC_DRAW);
    gl.drawArraysInstanced(gl.TRIANGLES, 0, count, rows.length / width);
  }

  discs(view, rows) {
    this.depth(true, false);
    this.instances("disc", rows, view);
  }

  mesh(mesh, rows, tint, uniforms) {
    const gl = this.gl;
    mesh.drawn ??= this.meshArray(mesh);
    gl.bindTexture(gl.TEXTURE_2D, mesh.drawn.transforms);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, rows.length / 4, 1, 0, gl.RGBA, gl.FLOAT, rows);
    this.use("mesh", { ...uniforms, tint });
    gl.bindVertexArray(mesh.drawn.array);
    gl.drawElements(gl.TRIANGLES, mesh.drawn.count, mesh.drawn.kind, 0);
  }
}
