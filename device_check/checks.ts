/** What is checked on each backend: the spec files of checks.json, and random routings. */
import {specFileGroups} from 'device-check-specs';
import {type DescribedSpecs, takeDescribed} from './described_specs';
import {describeRandomRoutings} from './random_routings';

export type Check = {title: string; groups: DescribedSpecs[]};

/** Once: a spec file describes its specs when it is first loaded. */
export function loadChecks(): Check[] {
  const loaders = [...specFileGroups, {title: 'Random routings', load: describeRandomRoutings}];
  return loaders.map(({title, load}) => {
    load();
    return {title, groups: takeDescribed()};
  });
}
