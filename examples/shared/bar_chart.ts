/** A line for each label, with its bar, count and share. The longest bar has `width` characters. */
export function barChart(labels: string[], counts: number[], width = 40): string {
  const total = counts.reduce((sum, count) => sum + count, 0);
  const largest = Math.max(...counts, 1);
  const labelWidth = Math.max(...labels.map((label) => label.length));
  return labels
    .map((label, i) => {
      const bar = '█'.repeat(Math.round((counts[i] / largest) * width)).padEnd(width);
      const share = total === 0 ? 0 : (100 * counts[i]) / total;
      const numbers = `${String(counts[i]).padStart(7)} ${share.toFixed(1).padStart(5)} %`;
      return `  ${label.padEnd(labelWidth)} ${bar} ${numbers}`;
    })
    .join('\n');
}
