// Destinations: from fields to `destination_conf` and back, and the rights that a bucket must give. Owns their spelling.
//
// Invariant: secrets of an R2 bucket are only in the text that POST ownership gets, never in one that is shown or kept.

export type Service = "s3" | "gs" | "r2" | "file";

export interface Fields {
  service: Service;
  bucket: string;
  directory: string;
  region: string;
  accountId: string;
  owner: string;
  accessKeyId: string;
  secretAccessKey: string;
}

export const NO_FIELDS: Fields = {
  service: "s3",
  bucket: "",
  directory: "",
  region: "",
  accountId: "",
  owner: "",
  accessKeyId: "",
  secretAccessKey: "",
};

const trimmed = (directory: string) => directory.trim().replace(/^\/+|\/+$/g, "");

/** The destination as captures name it: without secrets. */
export function destinationOf(fields: Fields): string {
  const directory = trimmed(fields.directory);
  if (fields.service === "file") return `file:///${directory}`;
  const path = directory === "" ? fields.bucket.trim() : `${fields.bucket.trim()}/${directory}`;
  if (fields.service === "gs") return `gs://${path}`;
  if (fields.service === "r2") return `r2://${path}?account-id=${encodeURIComponent(fields.accountId.trim())}`;
  return `s3://${path}?region=${encodeURIComponent(fields.region.trim())}`;
}

/** The destination as POST ownership gets it. */
export function ownershipOf(fields: Fields): string {
  const plain = destinationOf(fields);
  if (fields.service === "s3" && fields.owner.trim() !== "")
    return `${plain}&expected-bucket-owner=${encodeURIComponent(fields.owner.trim())}`;
  if (fields.service === "r2" && fields.accessKeyId !== "")
    return `${plain}&access-key-id=${encodeURIComponent(fields.accessKeyId.trim())}&secret-access-key=${encodeURIComponent(fields.secretAccessKey.trim())}`;
  return plain;
}

export function missingOf(fields: Fields): (keyof Fields)[] {
  const needed: Record<Service, (keyof Fields)[]> = {
    s3: ["bucket", "region"],
    gs: ["bucket"],
    r2: ["bucket", "accountId"],
    file: ["directory"],
  };
  return needed[fields.service].filter((name) => fields[name].trim() === "");
}

/** The scheme of a destination, if it is one that is known. */
export function serviceOf(destination: string): Service | undefined {
  const scheme = /^(s3|gs|r2|file):\/\//.exec(destination)?.[1];
  return scheme as Service | undefined;
}

/** The address of an object beside a destination, as the command lines of the stores take it. */
export function objectAddress(destination: string, name: string): string {
  const plain = destination.split("?")[0]!.replace(/\/+$/, "");
  return `${plain}/${name}`;
}

/** The statement of a bucket's policy that lets the host write, and read what it wrote. */
export function s3Policy(fields: Pick<Fields, "bucket" | "directory">): string {
  const directory = trimmed(fields.directory);
  const objects = `arn:aws:s3:::${fields.bucket.trim() || "BUCKET"}/${directory === "" ? "" : `${directory}/`}*`;
  return JSON.stringify(
    {
      Version: "2012-10-17",
      Statement: [
        {
          Sid: "TrawlWritesCaptures",
          Effect: "Allow",
          Principal: { AWS: "ARN_OF_THE_CAPTURE_HOST" },
          Action: ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload"],
          Resource: objects,
        },
      ],
    },
    null,
    2,
  );
}
