# Once an account, by a person with administrator rights: where the state lives, and who the pipeline may become.
# Everything else is made by the pipeline with these roles. Tests: tests/bootstrap.tftest.hcl.

locals {
  bucket = "orders-tfstate-${var.account_id}"
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = {
      Project     = "plumbline"
      Service     = "orders"
      Environment = var.environment
      Owner       = var.owner
      CostCenter  = var.cost_center
      ManagedBy   = "terraform/bootstrap"
      Repository  = var.repository
    }
  }
}

resource "aws_kms_key" "state" {
  description             = "Terraform state of ${var.environment}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "AccountDecidesByIAM"
      Effect    = "Allow"
      Principal = { AWS = "arn:aws:iam::${var.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "state" {
  name          = "alias/orders-tfstate"
  target_key_id = aws_kms_key.state.key_id
}

resource "aws_s3_bucket" "state" {
  #checkov:skip=CKV_AWS_18:object changes go to EventBridge, and CloudTrail has the callers; a second log bucket needs its own log
  #checkov:skip=CKV_AWS_144:versions are the way back; a lost region takes what the state describes with it
  bucket = local.bucket

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.state.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket                  = aws_s3_bucket.state.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}

    # A year of old states: the way back after a wrong apply.
    noncurrent_version_expiration {
      noncurrent_days = 365
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_notification" "state" {
  bucket      = aws_s3_bucket.state.id
  eventbridge = true
}

resource "aws_s3_bucket_policy" "state" {
  bucket = aws_s3_bucket.state.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TLSOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.state]
}

# The key of node volumes names this role; a key policy that names a missing role is refused.
resource "aws_iam_service_linked_role" "autoscaling" {
  count = var.create_autoscaling_role ? 1 : 0

  aws_service_name = "autoscaling.amazonaws.com"
}

module "github_oidc" {
  source = "../modules/github-oidc"

  name                 = "orders-${var.environment}"
  environment          = var.environment
  account_id           = var.account_id
  repository           = var.repository
  state_bucket_arn     = aws_s3_bucket.state.arn
  state_kms_key_arn    = aws_kms_key.state.arn
  image_repository_arn = var.holds_image_registry ? "arn:aws:ecr:${var.region}:${var.account_id}:repository/plumbline" : null
}
