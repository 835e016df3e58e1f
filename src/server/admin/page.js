// Fetches status.json every two seconds and shows it. Whatever comes from there is
// set as text, never as HTML: clients choose their names. A part whose data has not
// changed is left alone, so that what somebody selects or reads stays.
'use strict';

const PAUSE = 2000;
const SOON = 14;
const SVG = 'http://www.w3.org/2000/svg';
const STEPS = 120;

const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString('en');

// An element with text and elements in it.
function make(name, look, ...content) {
  const element = document.createElement(name);
  if (look) element.className = look;
  element.append(...content);
  return element;
}

// Text of somebody else, kept from turning the direction of what is around it.
const foreign = (text) => make('bdi', '', text);
const small = (...content) => make('span', 'small', ...content);
const row = (left, right) => make('li', '', left, right);

const drawn = new Map();

// Draws a part anew if its data have changed.
function draw(id, data, rows, empty) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  const content = data.map(rows);
  at(id).replaceChildren(...(content.length ? content : [make('li', 'empty', empty)]));
}

function set(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

function length(seconds) {
  const units = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = units.findIndex(([size]) => seconds >= size);
  if (first < 0) return '0 s';
  const [size, unit] = units[first];
  const whole = `${Math.floor(seconds / size)} ${unit}`;
  const [less, lesser] = units[first + 1] || [0];
  return less && size > 60 ? `${whole} ${Math.floor((seconds % size) / less)} ${lesser}` : whole;
}

const octets = (count) => {
  const unit = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(4, Math.floor(Math.log2(Math.max(count, 1)) / 10));
  return `${number(Math.round(count / 1024 ** power))} ${unit[power]}`;
};

function moment(seconds, now) {
  const time = new Date(seconds * 1000);
  const options = now - seconds < 86400
    ? { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false }
    : { month: 'short', day: '2-digit', hour: '2-digit', minute: '2-digit', hour12: false };
  const element = make('time', '', time.toLocaleString('en-GB', options));
  element.dateTime = time.toISOString();
  return element;
}

// The right end is now; what was before the start is left out.
function curve(id, steps) {
  const top = Math.max(1, ...steps);
  const start = STEPS - steps.length;
  const points = steps.map((step, index) => `${start + index},${(29 - 27 * step / top).toFixed(1)}`);
  const svg = at(id);
  const text = points.join(' ');
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  svg.setAttribute('viewBox', `0 0 ${STEPS - 1} 30`);
  svg.setAttribute('preserveAspectRatio', 'none');
  svg.setAttribute('aria-hidden', 'true');
  const area = document.createElementNS(SVG, 'polygon');
  area.setAttribute('points', points.length ? `${start},30 ${text} ${STEPS - 1},30` : '');
  const line = document.createElementNS(SVG, 'polyline');
  line.setAttribute('points', text);
  svg.replaceChildren(area, line);
}

function traffic(data) {
  set('sessions', number(data.sessions));
  set('sessions-more', `${number(data.places_taken)} of ${number(data.sessions_max)} places taken`);
  for (const name of ['connections', 'delivered', 'refused']) {
    set(name, number(data[name].minute));
    set(`${name}-more`, `${number(data[name].total)} since the start`);
  }
  set('delivered-more', `${number(data.delivered.total)} since the start, ${octets(data.octets)} received`);
  for (const name of Object.keys(data.steps)) curve(`${name}-curve`, data.steps[name]);
}

function event(now) {
  return (data) => {
    const who = make('span', '', foreign(data.client));
    if (data.helo !== null) who.append(small('HELO ', foreign(data.helo)));
    const what = make('span', '');
    what.append(make('span', data.passed ? 'tag passed' : 'tag', data.passed ? `let pass: ${data.reason}` : data.reason));
    what.append(` at ${data.at} `);
    if (data.times > 1) what.append(make('span', 'times', `${number(data.times)} times`));
    if (data.from !== null || data.to !== null) {
      what.append(small('from ', foreign(data.from ?? '-'), ' to ', foreign(data.to ?? '-')));
    }
    what.append(small(foreign(data.reply), ` [${data.session}]`));
    return make('li', '', moment(data.time, now), who, what);
  };
}

const service = (data) => row(
  make('span', '', foreign(data.name), small(data.told ? `${data.kind}, ${data.told}` : data.kind)),
  make('span', data.up ? 'up' : 'down', data.up ? 'up' : 'DOWN'),
);

function certificate(data) {
  const names = data.names.slice(0, 5).join(', ') + (data.names.length > 5 ? ', …' : '');
  const look = data.days < 1 ? 'down' : data.days < SOON ? 'soon' : 'up';
  const days = data.days === 1 ? '1 day' : `${number(data.days)} days`;
  return row(
    make('span', '', foreign(names || data.label), small(data.self_signed ? 'made in memory' : foreign(data.label))),
    data.self_signed ? make('span', 'soon', 'self-signed') : make('span', look, days),
  );
}

const ban = (data) => row(
  make('span', '', foreign(data.network), small(data.reason, data.strikes > 1 ? `, ${data.strikes} in a row` : '')),
  make('span', '', `${length(data.left)} left`),
);

function reasons(all) {
  const most = Math.max(1, ...all.map((data) => data.count));
  return (data) => {
    const bar = make('span', 'bar');
    bar.style.width = `${100 * data.count / most}%`;
    return make('li', '', bar, make('span', '', data.reason), make('span', '', number(data.count)));
  };
}

const limit = ([name, value]) => make('div', '', make('dt', '', name), make('dd', '', value));

// What somebody should look after.
function problems(data) {
  const found = [];
  for (const condition of data.conditions) {
    if (!condition.met) found.push(`${condition.name.replace('_', ' ')}: ${condition.detail}`);
  }
  for (const service of data.services) {
    if (!service.up && service.kind !== 'backend') found.push(`${service.kind} ${service.name} is not in service`);
    if (!service.up && service.kind === 'backend') found.push(`backend ${service.name} ${service.told}`);
  }
  for (const certificate of data.certificates) {
    if (certificate.self_signed) found.push('the certificate is self-signed: clients that check refuse it');
    else if (certificate.days < SOON) found.push(`certificate ${certificate.label} ends in ${certificate.days} days`);
  }
  // A backend that is the only one is named by the condition too.
  return found.filter((text) => !(text.startsWith('backend: ') && data.services.some((s) => s.kind === 'backend' && !s.up)));
}

function state(text, look) {
  set('state', text);
  at('state').className = look;
}

function show(data) {
  const found = problems(data);
  const count = found.length === 1 ? '1 problem' : `${found.length} problems`;
  document.body.classList.remove('stale');
  state(found.length ? count : 'All well', found.length ? 'bad' : 'good');
  at('monitor').hidden = !data.monitor;
  at('problems').hidden = !found.length;
  draw('problems', found, (text) => make('li', '', text), '');
  set('hostname', data.hostname);
  document.title = `${found.length ? `(${count}) ` : ''}Portcullis ${data.hostname}`;
  set('about', `version ${data.version}, up ${length(data.uptime)}, as of ${new Date(data.now * 1000).toLocaleTimeString('en-GB')}`);
  traffic(data.traffic);
  draw('services', data.services, service, 'None.');
  draw('certificates', data.certificates, certificate, 'None.');
  set('bans-count', data.bans.count ? `(${number(data.bans.count)})` : '');
  draw('bans', data.bans.listed, ban, 'Nobody.');
  draw('busiest', data.busiest, (one) => row(foreign(one.network), make('span', '', number(one.connections))), 'Nobody, or CONN_MAX is off.');
  draw('reasons', data.reasons, reasons(data.reasons), 'Nothing.');
  // Who has scrolled down is reading.
  const reading = at('events').scrollTop > 8;
  set('events-title', reading ? 'Refused last (held until you scroll to the top)' : 'Refused last');
  if (!reading) draw('refusals', data.events, event(data.now), 'Nothing has been refused yet.');
  draw('limits', data.limits, limit, 'None.');
}

let paused = false;
let seen = null;

async function poll() {
  if (!paused) {
    try {
      const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(answer.status);
      const data = await answer.json();
      seen = new Date();
      if (!paused) show(data);
    } catch {
      state(seen ? `No answer since ${seen.toLocaleTimeString('en-GB')}` : 'No answer', 'bad');
      document.body.classList.add('stale');
      document.title = '(no answer) Portcullis';
    }
  }
  setTimeout(poll, PAUSE);
}

at('pause').addEventListener('click', () => {
  paused = !paused;
  set('pause', paused ? 'Go on' : 'Pause');
  if (paused) state('Paused', '');
});

poll();
