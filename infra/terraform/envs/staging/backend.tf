# Partial on purpose: `terraform init -backend-config=backend.hcl`. The values come from output `backend` of bootstrap.

terraform {
  backend "s3" {}
}
