// Drives the emulator with fly-admin, a client of Fly's API that others wrote.
// usage: node fly_admin.cjs NODE_MODULES URL TOKEN; prints what it saw as JSON.
const [modules, url, token] = process.argv.slice(2);
const Client = require(`${modules}/fly-admin/dist/client`).default;
const fly = new Client(token, { apiUrl: url, graphqlUrl: url });
const app_name = 'fly-admin';

async function until(condition) {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 300));
}

// The client retries nothing; this is what its users have to do about rate limits.
async function patiently(call) {
  let answer;
  await until(async () => {
    try {
      answer = await call();
      return true;
    } catch (error) {
      if (!String(error).includes('429')) throw error;
      return false;
    }
  });
  return answer;
}

async function main() {
  const seen = {};
  await fly.App.createApp({ app_name, org_slug: 'personal' });
  seen.apps = (await fly.App.listApps('personal')).apps.map((app) => app.name);
  seen.organization = (await fly.Organization.getOrganization('personal')).organization.slug;
  seen.region = (await fly.Regions.getRegions()).platform.requestRegion;
  const input = { appId: app_name, type: 'v6' };
  const { address } = (await fly.Network.allocateIpAddress(input)).allocateIpAddress.ipAddress;
  const addresses = async () => (await fly.App.getAppDetailed(app_name)).ipAddresses;
  seen.allocated = (await addresses()).some((ip) => ip.address === address);
  await fly.Network.releaseIpAddress({ appId: app_name, ip: address });
  seen.released = (await addresses()).length === 0;
  await fly.Secret.setSecrets({ appId: app_name, secrets: [{ key: 'SECRET', value: 's' }], replaceAll: false });

  const region = 'fra';
  const { id: volume_id } = await fly.Volume.createVolume({ app_name, name: 'data', region, size_gb: 1 });
  await fly.Volume.extendVolume({ app_name, volume_id, size_gb: 2 });
  seen.gigabytes = (await fly.Volume.getVolume({ app_name, volume_id })).size_gb;
  const config = {
    image: 'debian:stable-slim',
    init: { exec: ['sleep', 'inf'] },
    env: { VERSION: '1' },
    mounts: [{ volume: volume_id, path: '/data' }],
    services: [{ protocol: 'tcp', internal_port: 8080, ports: [{ port: 443, handlers: ['tls', 'http'] }] }],
    checks: { web: { type: 'http', port: 8080, method: 'GET', path: '/', interval: '15s', timeout: '2s' } },
  };
  const { id: machine_id, instance_id } = await fly.Machine.createMachine({ app_name, name: 'm', region, config });
  const id = { app_name, machine_id };
  const wait = (state, version) =>
    patiently(() => fly.Machine.waitMachine({ ...id, instance_id: version, state, timeout: '30s' }));
  await wait('started', instance_id);
  seen.listed = (await fly.Machine.listMachines({ app_name, region })).map((machine) => machine.name);
  seen.programs = (await fly.Machine.listProcesses(id)).map((one) => one.command);
  await fly.Machine.cordonMachine(id);
  await fly.Machine.uncordonMachine(id);
  const { data: lease } = await fly.Machine.acquireLease({ ...id, ttl: 1 });
  seen.leased = (await fly.Machine.getLease(id)).data.nonce === lease.nonce;
  seen.refused = await fly.Machine.stopMachine(id).catch(String);
  await until(() => fly.Machine.getLease(id).then(() => false, (error) => String(error).includes('404')));

  config.env.VERSION = '2';
  const updated = await fly.Machine.updateMachine({ ...id, config });
  await wait('started', updated.instance_id);
  seen.versions = (await fly.Machine.listVersions(id)).map(({ user_config }) => user_config.env.VERSION);
  await patiently(() => fly.Machine.stopMachine(id));
  await wait('stopped', updated.instance_id);
  const exit = (await fly.Machine.listEvents(id)).find((event) => event.type === 'exit');
  seen.exit = exit.request.exit_event.exit_code;
  seen.previous = (await fly.Machine.startMachine(id)).previous_state;
  await wait('started', updated.instance_id);
  await fly.Machine.deleteMachine({ ...id, force: true });
  await wait('destroyed', updated.instance_id);
  // It stays bound to its machine for a moment.
  await until(() => fly.Volume.deleteVolume({ app_name, volume_id }).catch(() => false));
  await fly.App.deleteApp(app_name);
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
