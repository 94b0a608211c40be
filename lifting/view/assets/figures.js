// What page_data.py packed, read back: typed arrays, and where everybody is at a moment. Scene axes: metres, z up.

const scene = JSON.parse(document.getElementById("scene").textContent);
const block = decodeBase64(document.getElementById("numbers").textContent.trim());
const UNKNOWN = -32768, UNKNOWN_SIGMA = 255; // stand for NaN
const times = numbersOf(scene.times);

function decodeBase64(text) {
  const bytes = new Uint8Array(Math.ceil(text.length / 4) * 3), step = 1 << 20;
  let at = 0;
  for (let start = 0; start < text.length; start += step) {
    const part = atob(text.slice(start, start + step));
    for (let k = 0; k < part.length; k++) bytes[at++] = part.charCodeAt(k);
  }
  return bytes.buffer;
}

function numbersOf(reference) {
  const types = { f4: Float32Array, i2: Int16Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  return new types[reference.type](block, reference.at, reference.shape.reduce((a, b) => a * b, 1));
}

const layers = scene.layers.map((layer) => ({
  ...layer, times: numbersOf(layer.times), visible: true, people: layer.people.map(readPerson),
}));
const result = layers[0];

function readPerson(person) {
  const read = { ...person, visible: true, count: person.names ? person.names.length : 0 };
  if (person.names) {
    read.joints = numbersOf(person.joints);
    read.joint_scale = person.joints.scale;
    read.path = person.path && numbersOf(person.path);
    read.sigma = person.sigma && numbersOf(person.sigma);
    read.sigma_scale = person.sigma && person.sigma.scale;
  }
  if (person.contacts) read.contacts = numbersOf(person.contacts);
  if (person.mesh) read.mesh = readMesh(person.mesh);
  return read;
}

function readMesh(mesh) {
  const vertices = Float32Array.from(numbersOf(mesh.vertices), (step) => step * mesh.vertices.scale);
  const faces = numbersOf(mesh.faces), normals = new Float32Array(vertices.length);
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [0, 1, 2].map((k) => point(vertices, faces[f + k]));
    const normal = cross(minus(b, a), minus(c, a)); // weighted by area
    for (let k = 0; k < 3; k++) for (let axis = 0; axis < 3; axis++) normals[3 * faces[f + k] + axis] += normal[axis];
  }
  return {
    vertices, faces, normals, bones: numbersOf(mesh.bones), weights: numbersOf(mesh.weights),
    rest: numbersOf(mesh.rest), parents: mesh.parents, path: numbersOf(mesh.path), turned: numbersOf(mesh.turned),
    turned_scale: mesh.turned.scale,
  };
}

function point(array, number) { return [array[3 * number], array[3 * number + 1], array[3 * number + 2]]; }
function minus(a, b) { return [a[0] - b[0], a[1] - b[1], a[2] - b[2]]; }
function plus(a, b, scale = 1) { return [a[0] + scale * b[0], a[1] + scale * b[1], a[2] + scale * b[2]]; }
function dot(a, b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
function cross(a, b) { return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]; }
function unit(a) { const length = Math.hypot(...a) || 1; return a.map((x) => x / length); }

// The frames around a time: `low` and `high` with the share `mix` of the latter; null beyond a layer's own frames.
function momentOf(layer, time) {
  const found = layer.times, last = found.length - 1;
  const slack = last > 0 ? 0.6 * (found[last] - found[0]) / last : 0.5 / scene.fps;
  if (last < 0 || time < found[0] - slack || time > found[last] + slack) return null;
  const low = floorIndex(found, time), high = Math.min(low + 1, last);
  const mix = high > low ? Math.min(Math.max((time - found[low]) / (found[high] - found[low]), 0), 1) : 0;
  return mix < 1e-3 ? { low, high: low, mix: 0 } : mix > 0.999 ? { low: high, high, mix: 0 } : { low, high, mix };
}

function floorIndex(sorted, value) {
  let low = 0, high = sorted.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (sorted[middle] <= value) low = middle; else high = middle - 1;
  }
  return low;
}

function nearestIndex(sorted, value) {
  const low = floorIndex(sorted, value), high = Math.min(low + 1, sorted.length - 1);
  return value - sorted[low] > sorted[high] - value ? high : low;
}

// (J) points in metres, null for a joint that is not known; null for a person who is absent.
function jointsAt(person, moment) {
  if (!moment || !person.joints) return null;
  const root = rootAt(person, moment);
  if (!root) return null;
  const found = [];
  for (let joint = 0; joint < person.count; joint++) {
    const near = offsetOf(person, moment.low, joint), far = offsetOf(person, moment.high, joint);
    const offset = near && far ? plus(near, minus(far, near), moment.mix) : moment.mix < 0.5 ? near : far;
    found.push(offset && plus(offset, root));
  }
  return found.some(Boolean) ? found : null;
}

function offsetOf(person, frame, joint) {
  const at = 3 * (frame * person.count + joint), steps = person.joints;
  return steps[at] === UNKNOWN ? null : [0, 1, 2].map((axis) => steps[at + axis] * person.joint_scale);
}

function rootAt(person, moment) {
  const path = person.mesh && !person.joints ? person.mesh.path : person.path;
  return path ? mixedPoint(path, moment) : [0, 0, 0];
}

function mixedPoint(path, moment) {
  const near = point(path, moment.low), far = point(path, moment.high);
  if (Number.isNaN(near[0]) || Number.isNaN(far[0])) {
    const sure = Number.isNaN(near[0]) ? far : near;
    return Number.isNaN(sure[0]) ? null : sure;
  }
  return plus(near, minus(far, near), moment.mix);
}

// (J) metres, the radius that holds 68 % of a joint's errors; null where it is not known.
function sigmaAt(person, moment) {
  if (!person.sigma) return null;
  const frame = moment.mix < 0.5 ? moment.low : moment.high;
  return Array.from(person.sigma.subarray(frame * person.count, (frame + 1) * person.count),
    (step) => (step === UNKNOWN_SIGMA ? null : step * person.sigma_scale));
}

function median(values) {
  const sorted = values.filter((value) => value !== null).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : null;
}

// Skinning transforms, rows [G | p - G J] of each bone (K x 12), and the joints p (K x 3); null for an absent person.
function poseAt(mesh, moment) {
  const root = moment && mixedPoint(mesh.path, moment);
  if (!root || mesh.turned[4 * mesh.parents.length * moment.low] === UNKNOWN
    || mesh.turned[4 * mesh.parents.length * moment.high] === UNKNOWN) return null;
  const count = mesh.parents.length, turns = [], joints = [], rows = new Float32Array(12 * count);
  for (const bone of boneOrder(mesh)) {
    const turn = rotationOf(mixedQuaternion(mesh, moment, bone)), parent = mesh.parents[bone], rest = point(mesh.rest, bone);
    turns[bone] = turn;
    joints[bone] = parent < 0 ? root : plus(joints[parent], turned(turns[parent], minus(rest, point(mesh.rest, parent))));
    const shift = minus(joints[bone], turned(turn, rest));
    for (let row = 0; row < 3; row++) rows.set([...turn[row], shift[row]], 12 * bone + 4 * row);
  }
  return { rows, joints };
}

function boneOrder(mesh) { // parents before children
  if (!mesh.order) {
    const depth = (bone) => (bone < 0 ? 0 : 1 + depth(mesh.parents[bone]));
    mesh.order = mesh.parents.map((_, bone) => bone).sort((a, b) => depth(a) - depth(b));
  }
  return mesh.order;
}

function mixedQuaternion(mesh, moment, bone) { // normalised linear interpolation, the short way round
  const at = (frame) => Array.from({ length: 4 }, (_, k) => mesh.turned[4 * (frame * mesh.parents.length + bone) + k]);
  const near = at(moment.low), far = at(moment.high);
  const sign = near.reduce((sum, value, k) => sum + value * far[k], 0) < 0 ? -1 : 1;
  return unit(near.map((value, k) => (1 - moment.mix) * value + sign * moment.mix * far[k]));
}

function rotationOf([w, x, y, z]) {
  return [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]];
}

function turned(rotation, vector) { return rotation.map((row) => dot(row, vector)); }

// Mean distance in metres between the joints that two people share by name, their roots brought together.
function jointError(person, other, moment, otherMoment) {
  const ours = jointsAt(person, moment), theirs = jointsAt(other, otherMoment);
  if (!ours || !theirs || !ours[person.root] || !theirs[other.root]) return null;
  const apart = minus(ours[person.root], theirs[other.root]);
  const shared = person.names.map((name, joint) => [ours[joint], theirs[other.names.indexOf(name)]])
    .filter(([a, b]) => a && b);
  return shared.length ? shared.reduce((sum, [a, b]) => sum + Math.hypot(...minus(minus(a, b), apart)), 0) / shared.length : null;
}
