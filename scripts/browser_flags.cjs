/** The flags and preferences that every run in a browser starts it with: karma.conf.js, browser.mjs and the bench. */

/** For a window or headless. WebGPU and WebGL run on the CPU, by SwiftShader. */
const chromiumFlags = [
  '--no-sandbox',
  '--no-first-run',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--enable-unsafe-webgpu',
  '--use-webgpu-adapter=swiftshader',
  '--enable-unsafe-swiftshader',
  '--use-angle=swiftshader',
  '--enable-features=Vulkan',
  '--use-vulkan=swiftshader',
  // SwiftShader writes out an instruction for every word of workgroup memory that it is to clear: a pipeline then takes
  // seconds to compile. Without the extension Dawn clears the memory by a loop.
  '--disable-dawn-features=use_vulkan_zero_initialize_workgroup_memory_extension',
  // Each of these makes SwiftShader compile a WebGL program more than once.
  '--disable-angle-features=warmUpPipelineCacheAtLink,supportsGraphicsPipelineLibrary',
];

const firefoxPreferences = {
  'dom.webgpu.enabled': true,
  'gfx.webgpu.ignore-blocklist': true,
  'webgl.force-enabled': true,
  // After 300 s Firefox takes thumbnails of visited pages, for its page of new tabs: it opens Karma's page again,
  // hidden, with the same id, and Karma begins again with the first spec.
  'browser.pagethumbnails.capturing_disabled': true,
};

module.exports = {chromiumFlags, firefoxPreferences};
