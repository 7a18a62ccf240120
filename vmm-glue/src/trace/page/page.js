// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
'use strict';
// Draws the trace that the page holds. Arrays are in order of time; an event is its index in them.
(() => {
  const begun = performance.now();
  const element = (id) => document.getElementById(id);
  const bytes = (id) => {
    const text = element(id).textContent;
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text).buffer;
    const binary = atob(text);
    const out = new Uint8Array(binary.length);
    for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
    return out.buffer;
  };
  const meta = JSON.parse(element('meta').textContent);
  const at = new Float64Array(bytes('at')), lasts = new Float64Array(bytes('lasts')), laneOf = new Uint16Array(bytes('lane'));
  const chainStart = new Uint32Array(bytes('chain-start')), stepEvent = new Uint32Array(bytes('step-event'));
  const stepAfter = new Int32Array(bytes('step-after')), stepBy = new Uint8Array(bytes('step-by'));
  const text = element('text').textContent;
  const count = at.length, chains = chainStart.length - 1, lanes = meta.lanes;

  // Where each event's text begins: made when it is first asked for.
  let starts = null;
  const lineStarts = () => {
    if (starts) return starts;
    starts = new Uint32Array(count + 1);
    let from = 0;
    for (let i = 0; i < count; i++) { starts[i] = from; from = text.indexOf('\n', from) + 1; }
    starts[count] = from;
    return starts;
  };
  const line = (event) => text.slice(lineStarts()[event], lineStarts()[event + 1] - 1).replaceAll('\u0001', '<');
  const nameOf = (event) => line(event).split(' ', 1)[0];

  // Events of each lane, in order of time.
  const size = new Uint32Array(lanes.length);
  for (let i = 0; i < count; i++) size[laneOf[i]]++;
  const members = lanes.map((_, n) => new Uint32Array(size[n]));
  size.fill(0);
  for (let i = 0; i < count; i++) { const lane = laneOf[i]; members[lane][size[lane]++] = i; }

  const end = (event) => at[event] + lasts[event];
  let whole = 1;
  for (let i = 0; i < count; i++) if (end(i) > whole) whole = end(i);
  const margin = whole * 0.01;
  let from = -margin, to = whole + margin;
  let chosen = -1, found = -1, hovered = -1, matches = [];

  const canvas = element('canvas'), context = canvas.getContext('2d'), tip = element('tip'), view = element('view');
  const LABELS = 150, AXIS = 24, LANE = 34, BOX = 20;
  let width = 0, height = 0, color = {};
  const x = (ns) => LABELS + (ns - from) / (to - from) * (width - LABELS);
  const ns = (px) => from + (px - LABELS) / (width - LABELS) * (to - from);
  const laneTop = (lane) => AXIS + lane * LANE + (LANE - BOX) / 2;

  // Index of the first member of a lane at or after a time.
  const lower = (list, time) => {
    let low = 0, high = list.length;
    while (low < high) { const middle = (low + high) >>> 1; if (at[list[middle]] < time) low = middle + 1; else high = middle; }
    return low;
  };
  const duration = (time) => {
    const size = Math.abs(time);
    if (size >= 1e9) return (time / 1e9).toFixed(3) + ' s';
    if (size >= 1e6) return (time / 1e6).toFixed(3) + ' ms';
    return (time / 1e3).toFixed(size >= 1e5 ? 1 : 2) + ' µs';
  };

  const resize = () => {
    const ratio = window.devicePixelRatio || 1;
    width = view.clientWidth;
    height = AXIS + lanes.length * LANE + 4;
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.height = height + 'px';
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(document.documentElement);
    for (const name of ['back', 'text', 'quiet', 'line', 'band', 'mark', 'task', 'kernel', 'interrupt', 'driver', 'qemu', 'daemon', 'flow', 'found'])
      color[name] = style.getPropertyValue('--' + name).trim();
    draw();
  };

  const drawAxis = () => {
    const rough = (to - from) / Math.max(2, (width - LABELS) / 110), unit = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * unit).find((n) => n >= rough);
    context.fillStyle = color.quiet; context.strokeStyle = color.line; context.textAlign = 'center';
    context.beginPath();
    for (let tick = Math.ceil(from / step) * step; tick <= to; tick += step) {
      const px = Math.round(x(tick)) + 0.5;
      if (px < LABELS) continue;
      context.moveTo(px, AXIS - 5); context.lineTo(px, height);
      if (px < width - 30) context.fillText(tick === 0 ? '0' : duration(tick), px, 14);
    }
    context.stroke();
    // By how much a time of the guest's may be off, to either side.
    const wide = 2 * meta.bound / (to - from) * (width - LABELS);
    context.fillStyle = color.mark;
    context.fillRect(LABELS, AXIS - 4, Math.min(Math.max(wide, 1), width - LABELS), 3);
    context.textAlign = 'right';
    context.fillText('±' + duration(meta.bound), LABELS - 6, 14);
  };

  const drawLane = (lane) => {
    const list = members[lane], top = laneTop(lane), fill = color[lanes[lane].kind];
    context.fillStyle = fill; context.strokeStyle = fill;
    // One that began before what is shown may last into it.
    let first = lower(list, from);
    for (let back = 0; back < 500 && first > 0; back++) {
      first--;
      if (lasts[list[first]] > 0) { if (end(list[first]) < from) first++; break; }
    }
    const last = lower(list, to);
    if (last - first > (width - LABELS) / 2) {
      // Too many to tell apart: how many there are in each pixel.
      let lo = first;
      for (let px = LABELS; px < width; px++) {
        const hi = lower(list, ns(px + 1));
        const covered = lo > 0 && end(list[lo - 1]) >= ns(px);
        if (hi > lo || covered) {
          context.globalAlpha = hi > lo ? Math.min(1, 0.45 + (hi - lo) / 20) : 0.45;
          context.fillRect(px, top, 1, BOX);
        }
        lo = hi;
      }
      context.globalAlpha = 1;
      return;
    }
    let labelled = LABELS;
    for (let i = first; i < last; i++) {
      const event = list[i], left = Math.max(LABELS, x(at[event]));
      if (lasts[event] > 0) {
        const right = Math.min(width, Math.max(left + 1.5, x(end(event))));
        context.globalAlpha = 0.35;
        context.fillRect(left, top, right - left, BOX);
        context.globalAlpha = 1;
        context.fillRect(left, top, 1.5, BOX);
      } else {
        context.fillRect(left - 1, top, 2, BOX);
      }
      if (left >= labelled) {
        const next = i + 1 < last ? x(at[list[i + 1]]) : width, room = next - left - 6;
        if (room > 24) {
          const name = nameOf(event);
          context.save();
          context.beginPath(); context.rect(left, top, room + 4, BOX); context.clip();
          context.fillStyle = color.text; context.textAlign = 'left';
          context.fillText(name, left + 4, top + 14);
          context.restore();
          context.fillStyle = fill;
        }
        labelled = left + 4;
      }
    }
  };

  const drawChain = (chain, strong) => {
    context.strokeStyle = color.flow; context.fillStyle = color.flow;
    context.lineWidth = strong ? 1.8 : 0.8; context.globalAlpha = strong ? 1 : 0.4;
    for (let step = chainStart[chain]; step < chainStart[chain + 1]; step++) {
      if (stepAfter[step] < 0) continue;
      const cause = stepEvent[chainStart[chain] + stepAfter[step]], effect = stepEvent[step];
      const x1 = x(at[cause]), x2 = x(at[effect]);
      if (Math.max(x1, x2) < LABELS || Math.min(x1, x2) > width) continue;
      const y1 = laneTop(laneOf[cause]) + BOX / 2, y2 = laneTop(laneOf[effect]) + BOX / 2;
      const bend = Math.max(12, Math.abs(x2 - x1) / 2), down = y1 === y2 ? BOX / 2 + 2 : 0;
      context.beginPath();
      context.moveTo(x1, y1 + down); context.bezierCurveTo(x1 + bend, y1 + down, x2 - bend, y2 + down, x2, y2 + down);
      context.stroke();
      context.beginPath();
      context.moveTo(x2, y2 + down); context.lineTo(x2 - 6, y2 + down - 3.5); context.lineTo(x2 - 6, y2 + down + 3.5);
      context.fill();
    }
    context.globalAlpha = 1; context.lineWidth = 1;
  };

  const chainTime = (chain) => at[stepEvent[chainStart[chain]]];
  const firstChain = (time) => {
    let low = 0, high = chains;
    while (low < high) { const middle = (low + high) >>> 1; if (chainTime(middle) < time) low = middle + 1; else high = middle; }
    return low;
  };

  let asked = false;
  const draw = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; paint(); }); } };
  const paint = () => {
    context.fillStyle = color.back; context.fillRect(0, 0, width, height);
    context.font = '12px system-ui, sans-serif';
    for (let lane = 0; lane < lanes.length; lane += 2) { context.fillStyle = color.band; context.fillRect(0, AXIS + lane * LANE, width, LANE); }
    drawAxis();
    context.save();
    context.beginPath(); context.rect(LABELS, 0, width - LABELS, height); context.clip();
    for (let lane = 0; lane < lanes.length; lane++) drawLane(lane);
    const first = Math.max(0, firstChain(from) - 20), last = firstChain(to);
    if (last - first <= 150) for (let chain = first; chain < last; chain++) if (chain !== chosen) drawChain(chain, false);
    if (chosen >= 0) drawChain(chosen, true);
    for (const [event, ink] of [[found, color.found], [hovered, color.mark]]) {
      if (event < 0) continue;
      const left = x(at[event]), right = Math.max(left + 3, x(end(event)));
      if (!['qemu', 'daemon'].includes(lanes[laneOf[event]].kind)) {
        const begin = x(at[event] - meta.bound);
        context.fillStyle = ink; context.globalAlpha = 0.2;
        context.fillRect(begin, laneTop(laneOf[event]) - 4, x(at[event] + meta.bound) - begin, BOX + 8);
        context.globalAlpha = 1;
      }
      context.strokeStyle = ink; context.lineWidth = 2;
      context.strokeRect(left - 2, laneTop(laneOf[event]) - 2, right - left + 4, BOX + 4);
      context.lineWidth = 1;
    }
    context.restore();
    context.textAlign = 'left'; context.fillStyle = color.text;
    for (let lane = 0; lane < lanes.length; lane++) {
      let label = lanes[lane].label;
      while (label.length > 4 && context.measureText(label).width > LABELS - 16) label = label.slice(0, -2) + '…';
      context.fillText(label, 10, laneTop(lane) + 14);
    }
    element('span').value = duration(to - from);
  };

  const show = (start, stop) => {
    const least = 200;
    if (stop - start < least) { const middle = (start + stop) / 2; start = middle - least / 2; stop = middle + least / 2; }
    from = Math.max(start, -whole * 0.5 - least); to = Math.min(stop, whole * 1.5 + least);
    draw();
  };
  const zoom = (factor, around) => { const middle = around ?? (from + to) / 2; show(middle - (middle - from) * factor, middle + (to - middle) * factor); };
  const pan = (share) => { const by = (to - from) * share; show(from + by, to + by); };

  const eventAt = (px, py) => {
    const lane = Math.floor((py - AXIS) / LANE);
    if (px < LABELS || lane < 0 || lane >= lanes.length) return -1;
    const list = members[lane], time = ns(px), reach = 5 * (to - from) / (width - LABELS);
    let best = -1, distance = Infinity;
    const middle = lower(list, time);
    for (let i = Math.max(0, middle - 200); i < Math.min(list.length, middle + 200); i++) {
      const event = list[i];
      const off = time < at[event] ? at[event] - time : Math.max(0, time - end(event));
      if (off <= reach && (off < distance || (off === distance && lasts[event] <= lasts[best]))) { best = event; distance = off; }
    }
    return best;
  };

  // Fields of an event, as name and value.
  const fieldsOf = (event) => {
    const all = line(event), rest = all.slice(nameOf(event).length + 1);
    const found = [...rest.matchAll(/([A-Za-z_]\w*)(?:=|: )((?:[^\s,]+(?: (?![A-Za-z_]\w*(?:=|: ))[^\s,=]+)*))/g)];
    const fields = found.map((match) => [match[1], match[2]]);
    return fields.length ? fields : [['', rest]];
  };
  const hover = (event, px, py) => {
    if (event !== hovered) { hovered = event; draw(); }
    if (event < 0) { tip.style.display = 'none'; return; }
    tip.textContent = '';
    const title = document.createElement('b');
    title.textContent = nameOf(event);
    const table = document.createElement('table');
    const row = (name, value) => {
      const cells = table.insertRow();
      cells.insertCell().textContent = name; cells.insertCell().textContent = value;
    };
    row('where', lanes[laneOf[event]].label);
    row('time', duration(at[event]) + ' (' + (meta.origin + at[event] / 1e9).toFixed(6) + ' s of the host)');
    if (lasts[event] > 0) row('lasts', duration(lasts[event]));
    for (const [name, value] of fieldsOf(event)) row(name, value);
    tip.append(title, table);
    tip.style.display = 'block';
    tip.style.left = Math.max(4, Math.min(px + 14, width - tip.offsetWidth - 8)) + 'px';
    tip.style.top = (py + 18) + 'px';
  };

  const chainOf = (event) => {
    for (let step = 0; step < stepEvent.length; step++)
      if (stepEvent[step] === event) { let low = 0; while (chainStart[low + 1] <= step) low++; return low; }
    return -1;
  };
  const cell = (row, words, kind) => { const made = row.insertCell(); made.textContent = words; if (kind) made.className = kind; return made; };
  const choose = (chain, move) => {
    chosen = chain;
    for (const row of document.querySelectorAll('tr.chain')) row.classList.toggle('chosen', Number(row.dataset.chain) === chain);
    const table = element('steps');
    table.textContent = '';
    if (chain < 0) { element('steps-title').textContent = 'Where the time went: all chains'; overview(table); draw(); return; }
    const begin = chainStart[chain], stop = chainStart[chain + 1];
    let low = Infinity, high = 0, most = 1;
    for (let step = begin; step < stop; step++) {
      low = Math.min(low, at[stepEvent[step]]); high = Math.max(high, at[stepEvent[step]]);
      if (stepAfter[step] >= 0) most = Math.max(most, at[stepEvent[step]] - at[stepEvent[begin + stepAfter[step]]]);
    }
    element('steps-title').textContent = 'Where the time went: chain ' + (chain + 1) + ', ' + duration(high - low);
    const head = table.insertRow();
    for (const [words, kind] of [['event', ''], ['where', 'words'], ['after', 'words'], ['since', ''], ['by', 'words'], ['at', '']]) {
      const made = document.createElement('th'); made.textContent = words; made.className = kind; head.append(made);
    }
    for (let step = begin; step < stop; step++) {
      const event = stepEvent[step], cause = stepAfter[step] < 0 ? -1 : stepEvent[begin + stepAfter[step]], row = table.insertRow();
      cell(row, nameOf(event)); cell(row, lanes[laneOf[event]].label, 'words');
      cell(row, cause < 0 ? '' : nameOf(cause), 'words');
      const took = cell(row, cause < 0 ? '' : duration(at[event] - at[cause]) + ' ');
      if (cause >= 0) {
        const bar = document.createElement('span');
        bar.className = 'bar'; bar.style.width = Math.max(1, 36 * Math.max(0, at[event] - at[cause]) / most) + 'px';
        took.append(bar);
      }
      cell(row, meta.by[stepBy[step]], 'words'); cell(row, duration(at[event] - low));
    }
    if (move) { const room = Math.max((high - low) * 0.08, 1000); show(low - room, high + room); }
    draw();
  };
  const overview = (table) => {
    const head = table.insertRow();
    for (const [words, kind] of [['by', ''], ['links', ''], ['median', ''], ['worst', '']]) {
      const made = document.createElement('th'); made.textContent = words; made.className = kind; head.append(made);
    }
    for (const [by, links, median, worst] of meta.shares) {
      const row = table.insertRow();
      cell(row, by); cell(row, links); cell(row, duration(median)); cell(row, duration(worst));
    }
  };
  const SHOWN = 300;
  const listChains = () => {
    const table = element('chains'), head = table.insertRow();
    for (const words of ['chain', 'at', 'FIFO', 'bytes', 'position', 'events', 'takes']) {
      const made = document.createElement('th'); made.textContent = words; head.append(made);
    }
    for (let chain = 0; chain < Math.min(chains, SHOWN); chain++) {
      const row = table.insertRow();
      row.className = 'chain'; row.dataset.chain = chain; row.tabIndex = 0;
      let high = 0;
      for (let step = chainStart[chain]; step < chainStart[chain + 1]; step++) high = Math.max(high, at[stepEvent[step]]);
      const [fifo, position, bytes] = meta.chains[chain];
      cell(row, chain + 1); cell(row, duration(chainTime(chain))); cell(row, fifo); cell(row, bytes); cell(row, position);
      cell(row, chainStart[chain + 1] - chainStart[chain]); cell(row, duration(high - chainTime(chain)));
      row.onclick = () => choose(chain, true);
      row.onkeydown = (key) => { if (key.key === 'Enter') choose(chain, true); };
    }
    element('chains-title').textContent = chains + (chains === 1 ? ' chain' : ' chains') + (chains > SHOWN ? ', the first ' + SHOWN : '');
  };

  // Events whose name, fields or lane have the words in them.
  const search = (words) => {
    matches = []; found = -1;
    if (words) {
      const begin = lineStarts(), lanesFound = new Set(lanes.flatMap((lane, n) => lane.label.includes(words) ? [n] : []));
      if (lanesFound.size) {
        for (let event = 0; event < count && matches.length < 100000; event++) if (lanesFound.has(laneOf[event])) matches.push(event);
      } else {
        const wanted = words.replaceAll('<', '\u0001');
        let event = 0;
        for (let hit = text.indexOf(wanted); hit >= 0 && matches.length < 100000; hit = text.indexOf(wanted, begin[event])) {
          let low = event, high = count - 1;
          while (low < high) { const middle = (low + high + 1) >>> 1; if (begin[middle] <= hit) low = middle; else high = middle - 1; }
          matches.push(low);
          event = low + 1;
          if (event >= count) break;
        }
      }
    }
    next(0);
  };
  let current = 0;
  const next = (by) => {
    if (!matches.length) { element('matches').value = element('search').value ? 'none' : ''; draw(); return; }
    current = by === 0 ? 0 : (current + by + matches.length) % matches.length;
    found = matches[current];
    element('matches').value = (current + 1) + ' of ' + matches.length;
    if (at[found] < from || at[found] > to) { const half = (to - from) / 2; show(at[found] - half, at[found] + half); } else draw();
  };

  let dragged = null;
  canvas.addEventListener('wheel', (event) => {
    event.preventDefault();
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / 1000);
    else zoom(1.0015 ** event.deltaY, ns(event.offsetX));
  }, {passive: false});
  canvas.addEventListener('pointerdown', (event) => { dragged = {x: event.offsetX, moved: false}; canvas.focus({preventScroll: true}); try { canvas.setPointerCapture(event.pointerId); } catch {} });
  canvas.addEventListener('pointermove', (event) => {
    if (!dragged) { hover(eventAt(event.offsetX, event.offsetY), event.offsetX, event.offsetY); return; }
    const by = event.offsetX - dragged.x;
    if (Math.abs(by) > 2 || dragged.moved) { dragged.moved = true; dragged.x = event.offsetX; pan(-by / (width - LABELS)); }
  });
  canvas.addEventListener('pointerup', (event) => {
    if (dragged && !dragged.moved) { const event_ = eventAt(event.offsetX, event.offsetY); choose(event_ < 0 ? -1 : chainOf(event_), false); }
    dragged = null;
  });
  canvas.addEventListener('pointerleave', () => hover(-1));
  const keys = {'+': () => zoom(0.6), '=': () => zoom(0.6), '-': () => zoom(1 / 0.6), '0': () => show(-margin, whole + margin),
    ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2), Escape: () => choose(-1, false)};
  document.addEventListener('keydown', (event) => {
    if (event.target === element('search') || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === '/') { event.preventDefault(); element('search').focus(); }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  element('search').addEventListener('input', () => search(element('search').value));
  element('search').addEventListener('keydown', (event) => {
    if (event.key === 'Enter') next(event.shiftKey ? -1 : 1);
    if (event.key === 'Escape') { element('search').value = ''; search(''); canvas.focus(); }
  });
  element('in').onclick = keys['+']; element('out').onclick = keys['-']; element('all').onclick = keys['0'];
  window.addEventListener('resize', resize);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', resize);

  listChains();
  resize();
  // The longest chain says most.
  let longest = -1;
  for (let chain = 0; chain < chains; chain++)
    if (longest < 0 || chainStart[chain + 1] - chainStart[chain] > chainStart[longest + 1] - chainStart[longest]) longest = chain;
  choose(longest, count < 100000);
  paint();
  window.timeline = {
    events: count, chains, milliseconds: performance.now() - begun, canvas,
    shown: () => [from, to], place: (event) => [x(at[event]), laneTop(laneOf[event]) + BOX / 2], matches: () => matches.length,
  };
})();
