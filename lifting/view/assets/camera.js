// The viewer's camera: turns around a target, z up; knows how everybody fits in.

const FIELD = 32 * Math.PI / 180; // of view along the shorter side

const viewer = { target: [0, 0, 1], yaw: 0, pitch: 0.25, distance: 5, shift: [0, 0, 0] };

function filmedYaw() { // the direction in which the filming camera looks, seen from above
  const ahead = scene.camera.axes[2];
  return Math.hypot(ahead[0], ahead[1]) > 1e-3 ? Math.atan2(ahead[1], ahead[0]) : Math.PI / 2;
}

function setView(name) {
  const views = { filmed: [0, 0.16], side: [Math.PI / 2, 0.16], top: [0, Math.PI / 2 - 0.01], start: [0.42, 0.24] };
  const [turn, pitch] = views[name];
  Object.assign(viewer, { yaw: filmedYaw() + turn, pitch, shift: [0, 0, 0] });
}

// Everything that drawing and projecting need, for a picture of `width` x `height` CSS pixels.
function viewOf(width, height) {
  const { yaw, pitch, distance } = viewer, centre = plus(viewer.target, viewer.shift);
  const ahead = [Math.cos(pitch) * Math.cos(yaw), Math.cos(pitch) * Math.sin(yaw), -Math.sin(pitch)];
  const right = [Math.sin(yaw), -Math.cos(yaw), 0], up = cross(right, ahead);
  const eye = plus(centre, ahead, -distance), f = 1 / Math.tan(FIELD / 2), narrow = Math.min(width, height);
  const fx = f * narrow / width, fy = f * narrow / height, near = 0.02 * distance, far = 200 + 10 * distance;
  const a = (far + near) / (near - far), b = 2 * far * near / (near - far);
  const rows = [[...right, -dot(right, eye)].map((x) => fx * x), [...up, -dot(up, eye)].map((x) => fy * x),
    [...ahead.map((x) => -a * x), a * dot(ahead, eye) + b], [...ahead, -dot(ahead, eye)]];
  const camera = new Float32Array(16).map((_, k) => rows[k % 4][k >> 2]);
  return { camera, eye, right, up, ahead, scale: f * narrow / 2, width, height };
}

function project(view, place) { // CSS pixels from the top left corner; null behind the viewer
  const from = minus(place, view.eye), depth = dot(from, view.ahead);
  if (depth < 1e-3) return null;
  return [view.width / 2 + view.scale * dot(from, view.right) / depth, view.height / 2 - view.scale * dot(from, view.up) / depth];
}

// Where a person of the result is (root, metres), at whole frames; null where absent.
function rootsOf(person, most = 600) {
  const step = Math.max(1, Math.ceil(result.times.length / most)), roots = [];
  for (let frame = 0; frame < result.times.length; frame += step) {
    const moment = { low: frame, high: frame, mix: 0 }, joints = jointsAt(person, moment);
    const pose = !joints && person.mesh ? poseAt(person.mesh, moment) : null;
    roots.push(joints ? joints[person.root] || joints.find(Boolean) : pose && pose.joints[0]);
  }
  return roots;
}

// The middle of everybody's paths and whether they go too far for one view of it all.
function surveyPaths() {
  const roots = result.people.flatMap((person) => rootsOf(person)).filter(Boolean);
  if (!roots.length) return { middle: [0, 0], wide: false };
  const low = [0, 1].map((axis) => Math.min(...roots.map((root) => root[axis])));
  const high = [0, 1].map((axis) => Math.max(...roots.map((root) => root[axis])));
  return { middle: [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2], wide: Math.max(high[0] - low[0], high[1] - low[1]) > (result.people.length > 1 ? 4.4 : 2.4) };
}

// Place of the followed person, averaged over a second so that the view does not shake.
function followedAt(time) {
  const layer = layers.find((one) => momentOf(one, time)) || result, person = layer.people.find((one) => one.visible) || layer.people[0];
  if (!person) return null;
  const places = [];
  for (let step = -6; step <= 6; step++) {
    const moment = momentOf(layer, time + step / 12), root = moment && rootOrPose(person, moment);
    if (root) places.push(root);
  }
  return places.length ? [0, 1].map((axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length) : null;
}

function rootOrPose(person, moment) {
  const joints = jointsAt(person, moment);
  return joints ? joints[person.root] : person.mesh ? (poseAt(person.mesh, moment) || { joints: [null] }).joints[0] : null;
}

// Distance and height of the target at which nine tenths of all joints fit, wherever the view turns.
function fitDistance(width, height, follow, middle) {
  const step = Math.max(1, Math.ceil(result.times.length / 120)), far = [], high = [];
  for (let frame = 0; frame < result.times.length; frame += step) {
    const centre = follow ? followedAt(result.times[frame]) || middle : middle, moment = { low: frame, high: frame, mix: 0 };
    for (const person of result.people) {
      const joints = jointsAt(person, moment) || (person.mesh && (poseAt(person.mesh, moment) || {}).joints) || [];
      for (const joint of joints.filter(Boolean)) {
        far.push(Math.hypot(joint[0] - centre[0], joint[1] - centre[1]));
        high.push(joint[2] - scene.floor);
      }
    }
  }
  const share = (values, part) => values.sort((a, b) => a - b)[Math.floor(part * (values.length - 1))];
  const radius = Math.min(Math.max(far.length ? share(far, 0.98) : 1, 0.7), 6), top = Math.min(Math.max(high.length ? share(high, 0.98) : 1.7, 1), 6) + 0.15;
  const narrow = Math.min(width, height), tangent = Math.tan(FIELD / 2);
  const across = radius / (tangent * width / narrow), along = (0.5 * top + 0.3 * radius) / (tangent * height / narrow);
  return { distance: 1.12 * Math.max(across, along) + 0.6 * radius, height: scene.floor + 0.48 * top };
}
