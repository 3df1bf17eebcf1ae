# A second, separate copy of the backups: the cluster's own snapshots go when somebody deletes the cluster without a last
# one, and with the rights of the apply role. The vault refuses early deletion.

resource "aws_backup_vault" "this" {
  count = var.backup_vault ? 1 : 0

  name        = var.name
  kms_key_arn = var.kms_key_arn
}

resource "aws_backup_vault_lock_configuration" "this" {
  count = var.backup_vault ? 1 : 0

  # Without changeable_for_days the lock is in governance mode: administrators can still lift it, the pipeline cannot.
  backup_vault_name  = aws_backup_vault.this[0].name
  min_retention_days = 7
}

resource "aws_backup_plan" "this" {
  count = var.backup_vault ? 1 : 0

  name = var.name

  rule {
    rule_name         = "daily"
    target_vault_name = aws_backup_vault.this[0].name
    schedule          = "cron(0 5 * * ? *)"

    lifecycle {
      delete_after = 35
    }
  }
}

resource "aws_iam_role" "backup" {
  count = var.backup_vault ? 1 : 0

  name                 = "${var.name}-backup"
  permissions_boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "backup.amazonaws.com" }
      Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "backup" {
  count = var.backup_vault ? 1 : 0

  role       = aws_iam_role.backup[0].name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AWSBackupServiceRolePolicyForBackup"
}

resource "aws_backup_selection" "this" {
  count = var.backup_vault ? 1 : 0

  name         = var.name
  plan_id      = aws_backup_plan.this[0].id
  iam_role_arn = aws_iam_role.backup[0].arn
  resources    = [aws_rds_cluster.this.arn]
}
