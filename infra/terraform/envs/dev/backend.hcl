# Example account: replace it with yours. S3 itself holds the lock (<key>.tflock).
bucket       = "orders-tfstate-111122223333"
key          = "dev/terraform.tfstate"
region       = "us-east-1"
encrypt      = true
kms_key_id   = "alias/orders-tfstate"
use_lockfile = true
