// COCO run lengths as SVG paths, in pixels of the mask; vgr_rl/grounding/masks.py describes the text.
const runLengths = (counts) => {
  const runs = [];
  for (let at = 0; at < counts.length; ) {
    let value = 0, shift = 0, digit;
    do {
      digit = counts.charCodeAt(at++) - 48;
      value |= (digit & 31) << shift;
      shift += 5;
    } while (digit & 32);
    if (digit & 16) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  return runs;
};

// For each column the edges of its runs: [top, bottom, top, bottom, …].
const columnsOf = ({ size: [height, width], counts }) => {
  const columns = Array.from({ length: width }, () => []);
  let at = 0;
  runLengths(counts).forEach((run, index) => {
    const end = at + run;
    for (let from = at; index % 2 && from < end; ) {
      const column = Math.floor(from / height), to = Math.min(end, (column + 1) * height);
      columns[column].push(from - column * height, to - column * height);
      from = to;
    }
    at = end;
  });
  return columns;
};

const maskPaths = (mask) => {
  const fill = [], outline = [];
  let before = [];
  [...columnsOf(mask), []].forEach((column, x) => {
    for (let index = 0; index < column.length; index += 2) {
      const [top, bottom] = [column[index], column[index + 1]];
      fill.push(`M${x} ${top}h1V${bottom}h-1z`);
      outline.push(`M${x} ${top}h1M${x} ${bottom}h1`);
    }
    const edges = [...before, ...column].sort((one, other) => one - other); // where one column is set and the other is not
    for (let index = 0; index < edges.length; index += 2)
      if (edges[index] !== edges[index + 1]) outline.push(`M${x} ${edges[index]}V${edges[index + 1]}`);
    before = column;
  });
  return { fill: fill.join(""), outline: outline.join("") };
};
