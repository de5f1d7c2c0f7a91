// node call.mjs URL MODE: connect as the official TypeScript client, list the tools, call one, print what came.
// MODE is `legacy` (handshake) or a protocol revision to pin.
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";

const [url, mode] = process.argv.slice(2);
const versionNegotiation = { mode: mode === "legacy" ? "legacy" : { pin: mode } };
const client = new Client({ name: "clients-test", version: "1" }, { versionNegotiation });
await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const { tools } = await client.listTools();
const code = "result = 2 + 3\nprint(f'计算结果: {result}')";
const called = await client.callTool({ name: "execute_python", arguments: { code } });
console.log(JSON.stringify({ tools: tools.map((tool) => tool.name), called }));
await client.close();
