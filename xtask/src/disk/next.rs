//! What one does with a disk of each format.

use std::path::Path;

use super::DiskFormat;

impl DiskFormat {
    /// The commands that bring a disk to where it runs, for people; what is in capitals is theirs.
    pub(crate) fn next_steps(self, file: &Path) -> String {
        let path = file.display();
        match self {
            DiskFormat::Raw => format!(
                "  to a device:  dd if={path} of=/dev/DEVICE bs=4M conv=sparse,fsync status=progress\n  \
                 (sparse leaves out zeros: the device has to be empty, or discarded with 'blkdiscard')"
            ),
            // import-image takes a system apart, and fails on one that ostree has laid out.
            DiskFormat::Ami => format!(
                "  to AWS:  aws s3 cp {path} s3://BUCKET/disk.raw\n           \
                 aws ec2 import-snapshot --disk-container \
                 'Format=RAW,UserBucket={{S3Bucket=BUCKET,S3Key=disk.raw}}'\n           \
                 aws ec2 register-image --name NAME --architecture x86_64 --boot-mode uefi --ena-support \
                 --virtualization-type hvm --root-device-name /dev/xvda \
                 --block-device-mappings 'DeviceName=/dev/xvda,Ebs={{SnapshotId=SNAPSHOT}}'"
            ),
            // A copy: the machine writes to it, and the next run makes this one anew.
            DiskFormat::Qcow2 => format!(
                "  with libvirt:  cp --sparse=always {path} /var/lib/libvirt/images/NAME.qcow2\n                 \
                 virt-install --import --name NAME --memory 4096 --vcpus 2 --boot uefi \
                 --osinfo detect=on,require=off --disk /var/lib/libvirt/images/NAME.qcow2"
            ),
            DiskFormat::Vmdk => {
                format!("  to vSphere:  govc import.vmdk {path} FOLDER    (the machine needs EFI firmware)")
            }
            DiskFormat::Vhd => format!(
                "  to Azure:  az storage blob upload --type page --file {path} --account-name ACCOUNT \
                 --container-name CONTAINER --name disk.vhd\n             \
                 az disk create --resource-group GROUP --name NAME --os-type Linux \
                 --hyper-v-generation V2 --source https://ACCOUNT.blob.core.windows.net/CONTAINER/disk.vhd"
            ),
            DiskFormat::Gce => format!(
                "  to Google Cloud:  gcloud storage cp {path} gs://BUCKET/disk.tar.gz\n                    \
                 gcloud compute images create NAME --source-uri gs://BUCKET/disk.tar.gz \
                 --guest-os-features UEFI_COMPATIBLE,VIRTIO_SCSI_MULTIQUEUE"
            ),
            DiskFormat::Ova => {
                format!("  to vSphere:  govc import.ova {path}    (or: ovftool {path} vi://USER@HOST/)")
            }
            DiskFormat::Iso => format!(
                "{}\n  (it asks for the disk to install onto; as arguments of its kernel, these answer:)\n  \
                 testboot.disk=/dev/DISK testboot.erase=yes",
                to_stick(file)
            ),
        }
    }
}

/// The command that writes an iso to where a machine starts from.
pub(crate) fn to_stick(iso: &Path) -> String {
    format!("  on a stick, or attached as a CD:  dd if={} of=/dev/STICK bs=4M conv=fsync", iso.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_steps_name_the_file() {
        for format in DiskFormat::ALL {
            let steps = format.next_steps(Path::new("out/os.x"));
            assert!(steps.contains("out/os.x") && steps.starts_with("  "), "{steps}");
        }
    }

    /// The document says more of the same commands.
    #[test]
    fn the_document_has_the_same_commands() {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let document = include_str!("../../../docs/015-manual-deployments.md").replace("\\\n", " ");
        let document = words(&document);
        for format in DiskFormat::ALL {
            let path = format!("target/dist/disk/debian-13-v1.{}", format.extension());
            let steps = format.next_steps(Path::new(&path));
            let commands = steps.lines().filter_map(|line| line.rsplit("  ").next());
            for command in commands.filter(|line| !line.trim_start().starts_with('(')) {
                let command = words(command.split("    (").next().unwrap());
                assert!(document.contains(&command), "{command}");
            }
        }
    }

    #[test]
    fn steps_are_set_like_a_table() {
        insta::assert_snapshot!(DiskFormat::Vhd.next_steps(Path::new("a.vhd")), @"
        to Azure:  az storage blob upload --type page --file a.vhd --account-name ACCOUNT --container-name CONTAINER --name disk.vhd
                   az disk create --resource-group GROUP --name NAME --os-type Linux --hyper-v-generation V2 --source https://ACCOUNT.blob.core.windows.net/CONTAINER/disk.vhd
        ");
    }
}
